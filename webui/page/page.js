// The page is a function of the box's latest state, told by server-sent events.
//
//   /api/v1/events ──► last ──► render() ──► text of the elements
//                       ▲ once a second too: timers count
//
// Nothing is shown as the present once the box has been silent for SILENCE.

const SILENCE = 12_000; // ms; the box says "alive" every 5 s
const RETRY = 2_000; // ms

const WORDS = {
  off: ['○', 'Ready'],
  starting: ['◌', 'Connecting'],
  live: ['●', 'ON AIR'],
  degraded: ['▲', 'DEGRADED'],
  fault: ['✕', 'FAILED'],
};
const OUTPUT_WORDS = {
  off: ['off', 'Off'],
  starting: ['wait', 'Connecting'],
  unconfirmed: ['wait', 'Sending, not yet confirmed'],
  live: ['air', 'On air'],
  backoff: ['bad', 'Waiting to try again'],
  failed: ['bad', 'Stopped'],
};
const RENDITION_WORDS = {
  off: ['off', 'Off'],
  starting: ['wait', 'Starting'],
  live: ['good', 'Running'],
  recovering: ['bad', 'Hangs, is brought back'],
  backoff: ['bad', 'Waiting to try again'],
  failed: ['bad', 'Stopped'],
};
const WAYS = {
  export: 'Shared, no copy', import: 'Shared, no copy', heap: 'In memory, no copy',
  copy: 'Copied', convert: 'Converted', decode: 'Decoded', through: 'Coded by the camera',
};
const TALLY_WORDS = new Map([
  ['program', ['air', 'On program']],
  ['preview', ['next', 'On preview']],
  ['off', ['off', 'Off']],
  ['unknown', ['bad', 'Unknown']],
]);

// Lamps as daemon/panel names their patterns: a colour, and how it shines.
const COLOURS = new Set(['off', 'red', 'green', 'amber', 'blue', 'magenta', 'cyan', 'white']);
const RHYTHMS = new Map([
  ['', 'steady'],
  ['pulse', 'slowly on and off'],
  ['fast', 'quick flicker'],
  ['double', 'double flash'],
  ['occulting', 'on, with short gaps'],
  ['long-short', 'one long, one short'],
  ['long-short-short', 'one long, two short'],
  ['call', 'three short, one long'],
  ['blink 1', '1 blink, pause'],
  ...[2, 3, 4, 5, 6].map((n) => [`blink ${n}`, `${n} blinks, pause`]),
]);
const PERIOD = 2_000; // ms; whole periods of every rhythm
const SLIP = 20; // ms; less is not seen
// Where keys and lamps of the usual names are on the box, from left to right.
const PLACES = ['STREAM', 'REC', 'MUTE', 'RESET', 'TALLY', 'STAGE'];

const page = {
  last: null, // the latest state
  heard: 0, // when the box was heard last, by performance.now()
  skew: 0, // the box's clock minus the browser's, ms
  source: null,
  opened: 0, // when source was opened
  waiting: null, // since when the box has been asked and has not answered
};

const $ = (id) => document.getElementById(id);

// --- Words and numbers ---

function two(n) { return String(n).padStart(2, '0'); }

function clock(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

function bits(n) {
  if (!n) return '–';
  return n < 1e6 ? `${Math.round(n / 1e3)} kbit/s` : `${(n / 1e6).toFixed(2)} Mbit/s`;
}

function bytes(n) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let i = 0;
  for (; n >= 1000 && i < units.length - 1; i++) n /= 1000;
  return `${i ? n.toFixed(1) : n} ${units[i]}`;
}

function rate(fps) { return fps ? `${Number(fps.toFixed(2))} fps` : ''; }
function size(o) { return o.width && o.height ? `${o.width} × ${o.height}` : ''; }
function parts(...list) { return list.filter(Boolean).join(', ') || '–'; }
function ago(time) { return clock(now() - Date.parse(time)); }

// short is a time of which seconds matter most.
function short(ms) { return ms < 60_000 ? `${Math.max(0, Math.round(ms / 1000))} s` : clock(ms); }
function shortAgo(time) { return `${short(now() - Date.parse(time))} ago`; }
function now() { return Date.now() + page.skew; }

// --- Elements: touched only when their content differs, so that screen
// readers hear changes and nothing else ---

function text(el, value) {
  if (el.textContent !== value) el.textContent = value;
}

function attribute(el, name, value) {
  if (value === undefined) el.removeAttribute(name);
  else if (el.getAttribute(name) !== value) el.setAttribute(name, value);
}

// children makes el have n children, built by make.
function children(el, n, make) {
  while (el.children.length > n) el.lastElementChild.remove();
  while (el.children.length < n) el.append(make());
}

// table fills a table. A cell is a text, or {text, note, tone, wide}.
function table(id, rows) {
  const labels = [...$(id).querySelectorAll('th')].map((th) => th.textContent);
  const body = $(id).tBodies[0];
  children(body, rows.length, () => {
    const tr = document.createElement('tr');
    for (const label of labels) {
      const td = document.createElement('td');
      td.dataset.label = label;
      td.append(document.createElement('span'), document.createElement('small'));
      tr.append(td);
    }
    return tr;
  });
  rows.forEach((row, i) => row.forEach((cell, j) => fill(body.rows[i].cells[j], cell)));
  $(id).hidden = rows.length === 0;
  $(`no-${id}`).hidden = rows.length > 0;
}

function fill(td, cell) {
  const c = typeof cell === 'object' ? cell : { text: cell };
  text(td.firstChild, c.text);
  text(td.lastChild, c.note ?? '');
  td.lastChild.hidden = !c.note;
  attribute(td, 'data-tone', c.tone);
  td.classList.toggle('wide', Boolean(c.wide));
}

// --- The parts of the page ---

function render() {
  if (document.hidden) return;
  const silent = performance.now() - page.heard > SILENCE;
  const stale = !page.last || silent || page.source?.readyState !== EventSource.OPEN;
  document.body.classList.toggle('stale', stale && Boolean(page.last));
  renderLink(stale);
  if (!page.last) return;
  renderState(page.last, stale);
  renderFaults(page.last.faults);
  renderInputs(page.last);
  table('outputs', page.last.outputs.map(outputRow));
  table('renditions', page.last.renditions.map(renditionRow));
  table('readers', page.last.readers.map(readerRow));
  renderFront(page.last);
  renderTally(page.last.tally);
  renderEnding(page.last.ending, stale);
  renderBox(page.last);
}

function renderLink(stale) {
  // Under two seconds it is a hiccup, or the page has just been opened.
  const lost = stale && page.waiting !== null && performance.now() - page.waiting > 2000;
  $('lost').hidden = !lost;
  text($('lost'), !lost ? '' : page.last
    ? 'Connection to the box is lost. What stands below is old. Trying again… Check the network and the power of the box.'
    : 'The box does not answer. Trying again… Check the network and the power of the box.');
}

function renderState(box, stale) {
  const [symbol, word] = WORDS[box.state] ?? ['?', box.state];
  const age = Math.round((performance.now() - page.heard) / 1000);
  text($('name'), box.name || 'Encoder');
  attribute($('state'), 'data-state', stale ? 'unknown' : box.state);
  text($('symbol'), stale ? '?' : symbol);
  text($('word'), stale ? 'No connection' : word);
  const title = stale ? 'No connection' : `${symbol} ${word}`;
  document.title = `${title} – ${box.name || 'Encoder'}`;

  const since = box.outputs.filter((o) => o.state === 'live' && o.since).map((o) => Date.parse(o.since));
  $('timer').hidden = since.length === 0 && !stale;
  $('timer').firstElementChild.hidden = stale;
  text($('onair'), stale ? `last heard ${age} s ago` : clock(now() - Math.min(...since)));
}

function renderFaults(faults) {
  $('faults').hidden = faults.length === 0;
  children($('fault-list'), faults.length, () => {
    const li = document.createElement('li');
    li.append(document.createElement('strong'), ' ', document.createElement('time'), document.createElement('p'));
    return li;
  });
  faults.forEach((f, i) => {
    const [title, time, what] = $('fault-list').children[i].children;
    text(title, f.title);
    text(time, `for ${ago(f.since)}`);
    attribute(time, 'datetime', f.since);
    text(what, f.text);
  });
}

function renderInputs(box) {
  const { input, sound } = box;
  text($('video-signal'), input.signal ? '✓ Signal' : '▲ No signal: viewers see the no-signal picture');
  text($('video-format'), parts(size(input), rate(input.fps), input.format));
  text($('video-name'), parts(input.name || input.id, input.source && `(${input.source})`).replace(', (', ' ('));
  text($('video-lost'), `${input.missed} missed, ${input.damaged} damaged`);
  text($('sound-signal'), soundWord(sound));
  renderLevel(sound);
  text($('av-offset'), offsetWord(box.av_offset_ms));
}

function soundWord(sound) {
  if (sound.source === 'none') return 'None, as configured';
  if (sound.muted) return '▲ Muted: viewers hear silence';
  if (sound.silent) return `▲ ${sound.name || 'Sound'} is silent`;
  return sound.signal ? `✓ ${sound.name || 'Sound'}` : '▲ No sound: viewers hear silence';
}

function offsetWord(ms) {
  if (Math.abs(ms) < 0.5) return 'In step';
  return `${Math.abs(ms).toFixed(1)} ms ${ms > 0 ? 'late' : 'early'}`;
}

function renderLevel(sound) {
  const heard = sound.signal && !sound.muted;
  const db = heard ? Math.min(0, Math.max(-60, sound.peak_dbfs)) : -60;
  const level = $('level');
  level.style.width = `${((db + 60) / 60) * 100}%`;
  level.dataset.zone = db >= -9 ? 'top' : db >= -18 ? 'high' : 'low';
  const loudness = sound.loudness_lufs > -60 ? `${sound.loudness_lufs.toFixed(1)} LUFS` : '';
  const word = db > -60 ? parts(`${db.toFixed(1)} dBFS`, loudness) : 'silent';
  text($('level-text'), word);
  attribute($('meter'), 'aria-valuenow', db.toFixed(0));
  attribute($('meter'), 'aria-valuetext', word);
}

function outputRow(o) {
  const [tone, word] = OUTPUT_WORDS[o.state] ?? ['off', o.state];
  const wait = o.retry_at ? Math.ceil((Date.parse(o.retry_at) - now()) / 1000) : 0;
  const state = o.state !== 'backoff' ? word
    : wait > 0 ? `Trying again in ${wait} s` : 'Trying again now';
  const attempt = o.state === 'backoff' && o.attempt ? `Attempt ${o.attempt}: ` : '';
  return [
    { text: o.name, note: parts(o.url, o.required ? 'required' : ''), wide: true },
    { text: state, tone, note: attempt + (o.error ?? '') || `Carries ${o.rendition}`, wide: true },
    bits(o.bitrate),
    o.state === 'live' ? `${Math.round(o.lag_ms)} ms` : '–',
    String(o.lost),
  ];
}

function renditionRow(r) {
  const [tone, word] = RENDITION_WORDS[r.state] ?? ['off', r.state];
  return [
    { text: r.name, wide: true },
    { text: word, tone, note: r.error || r.encoder_reason || wayOf(r.buffers), wide: true },
    { text: parts(size(r)), note: rate(r.fps) },
    { text: parts(r.codec), note: r.encoder },
    { text: bits(r.bitrate), note: r.target_bitrate ? `of ${bits(r.target_bitrate)}` : '' },
    { text: String(r.dropped), note: `of ${r.frames}` },
  ];
}

// wayOf says how pictures get from the camera to an encoder.
function wayOf(b) { return b ? `${WAYS[b.way] ?? b.way}: ${b.reason}` : ''; }

function readerRow(r) {
  return [{ text: r.peer, wide: true }, r.protocol, r.rendition, ago(r.since), bytes(r.bytes), String(r.lost), r.lag_ms ? `${(r.lag_ms / 1000).toFixed(1)} s` : ''];
}

// --- The front of the box ---

function renderFront(box) {
  const keys = new Map(Object.entries(box.keys));
  const lamps = new Map(Object.entries(box.lamps));
  const names = [...new Set([...lamps.keys(), ...keys.keys()])].sort(byPlace);
  const front = $('front');
  children(front, names.length, station);
  names.forEach((name, i) => {
    const [socket, label, shows, why, ...rest] = front.children[i].children;
    text(label, name);
    renderLamp(socket, shows, lamps.get(name));
    line(why, lamps.get(name)?.reason);
    renderKey(label, rest, keys.get(name));
  });
  front.hidden = names.length === 0;
  $('no-front').hidden = names.length > 0;
  inStep(front);
}

function byPlace(a, b) {
  const place = (name) => (PLACES.includes(name) ? PLACES.indexOf(name) : PLACES.length);
  return place(a) - place(b) || (a < b ? -1 : 1);
}

// station is one place of the front: a lamp, a key, or a lamp above a key.
function station() {
  const li = document.createElement('li');
  const socket = document.createElement('span');
  socket.className = 'socket';
  socket.setAttribute('role', 'img');
  socket.append(document.createElement('span'));
  socket.firstChild.className = 'light';
  li.append(socket, ...['name', 'shows', 'why', 'wrong', 'next', 'key'].map((part) => {
    const p = document.createElement('p');
    p.className = part;
    return p;
  }));
  return li;
}

// line fills a paragraph that is there only if it says something.
function line(p, value) {
  text(p, value ?? '');
  p.hidden = !value;
}

function renderLamp(socket, shows, lamp) {
  attribute(socket, 'data-lamp', lamp ? 'yes' : 'no');
  line(shows, lamp && lampWord(lamp.pattern));
  if (!lamp) return;
  const [colour, rhythm] = cut(lamp.pattern);
  const known = COLOURS.has(colour) && RHYTHMS.has(rhythm);
  attribute(socket, 'aria-label', known && colour !== 'off' ? `${colour} light` : 'no light');
  attribute(socket.firstChild, 'data-color', known ? colour : 'off');
  attribute(socket.firstChild, 'data-rhythm', known && rhythm ? rhythm : undefined);
}

// cut parts a pattern into colour and rhythm.
function cut(pattern) {
  const at = pattern.indexOf(' ');
  return at < 0 ? [pattern, ''] : [pattern.slice(0, at), pattern.slice(at + 1)];
}

function lampWord(pattern) {
  const [colour, rhythm] = cut(pattern);
  if (pattern === 'off') return 'Dark';
  if (!COLOURS.has(colour) || !RHYTHMS.has(rhythm)) return pattern;
  return `${colour[0].toUpperCase()}${colour.slice(1)}, ${RHYTHMS.get(rhythm)}`;
}

// inStep makes lamps blink when the box's do, whose rhythms count from the epoch
// of wall time.
function inStep(front) {
  const start = performance.now() - (now() % PERIOD);
  for (const a of front.getAnimations({ subtree: true })) {
    const off = Math.abs((a.startTime ?? start + PERIOD / 2) - start) % PERIOD;
    if (Math.min(off, PERIOD - off) > SLIP) a.startTime = start;
  }
}

function renderKey(label, [wrong, next, last], key) {
  attribute(label, 'data-key', key && (key.down ? 'down' : 'up'));
  line(wrong, key?.error);
  line(next, key && [armedWord(key), key.holding && `Keep holding for ${key.holding}`].filter(Boolean).join('; '));
  line(last, key && keyWord(key));
}

// armedWord says how to confirm what is armed: the key may still be down from
// the hold that asked for it.
function armedWord(key) {
  if (!key.armed) return '';
  const waits = !key.down || key.holding === key.armed || (key.armed === 'factory.reset' && key.holding);
  return `${waits ? 'Press' : 'Let go, then press'} once for ${key.armed}`;
}

function keyWord(key) {
  const stands = key.down ? 'Key is DOWN' : 'Key is up';
  const moved = key.edge ? `, moved ${shortAgo(key.edge)}` : '';
  const order = key.action && key.at ? `. Last order, by ${key.gesture} ${shortAgo(key.at)}: ${key.action}` : '';
  return stands + moved + order;
}

function renderTally(tally) {
  const [, word] = tallyWord(tally.state);
  text($('tally'), tally.reason ? `${word}: ${tally.reason}` : word);
  table('switchers', tally.sources.map(switcherRow));
}

function tallyWord(state) { return TALLY_WORDS.get(state) ?? ['off', state || 'Off']; }

// others names who else speaks for a source, and says what.
function others(s) {
  return (s.senders ?? []).filter((o) => o.sender !== s.sender)
    .map((o) => `${o.sender} says ${tallyWord(o.state)[1].toLowerCase()}`).join(', ');
}

function switcherRow(s) {
  const [tone, word] = tallyWord(s.state);
  const bad = s.bad ? `${s.bad} times not understood` : '';
  return [
    { text: s.name, note: parts(s.protocol, s.input && `input ${s.input}`), wide: true },
    { text: word, tone, note: s.error, wide: true },
    { text: s.heard ? shortAgo(s.heard) : 'never', note: s.changed && `changed ${shortAgo(s.changed)}` },
    { text: s.address || '–', note: [s.sender && `sent by ${s.sender}`, others(s), bad].filter(Boolean).join(', '), wide: true },
  ];
}

// renderEnding tells how to take back a stop.
function renderEnding(ending, stale) {
  $('ending').hidden = !ending || stale;
  const left = Math.ceil((Date.parse(ending) - now()) / 1000);
  text($('ending-word'), ending ? 'The show was stopped.' : '');
  text($('ending-left'), !ending ? '' : left > 0 ? `Press STREAM within ${left} s to go on.` : 'It ends.');
}

// --- The box ---

function renderBox(box) {
  const { total_bytes: total, free_bytes: free } = box.storage;
  text($('box'), parts(
    box.board, box.version && `encoderd ${box.version}`, Date.parse(box.since) > 0 && `running for ${ago(box.since)}`,
    box.temperature_c ? `${box.temperature_c.toFixed(0)} °C` : '', total ? `${bytes(free)} of ${bytes(total)} free` : '',
  ));
}

// --- The link to the box; a hidden tab has none and costs the box nothing ---

function connect() {
  page.source?.close();
  const source = new EventSource('/api/v1/events');
  page.source = source;
  page.opened = performance.now();
  page.waiting ??= page.opened;
  source.addEventListener('status', (e) => {
    hear();
    page.last = JSON.parse(e.data);
    render();
  });
  source.addEventListener('alive', (e) => {
    hear();
    page.skew = Date.parse(JSON.parse(e.data).now) - Date.now();
    render();
  });
  source.addEventListener('error', () => {
    page.waiting ??= performance.now();
    render();
  });
}

function hear() {
  page.heard = performance.now();
  page.waiting = null;
}

// watchLink opens the link again where the browser has given up or hangs.
function watchLink() {
  if (document.hidden) return;
  const silent = performance.now() - Math.max(page.heard, page.opened) > SILENCE;
  if (!page.source || page.source.readyState === EventSource.CLOSED || silent) connect();
}

// --- The picture: the next one is asked for a second after the last came ---

async function picture() {
  const rendition = page.last?.renditions[0];
  if (document.hidden || !rendition) return;
  const image = $('preview');
  try {
    const answer = await fetch(`/live/${encodeURIComponent(rendition.name)}.jpg`, { cache: 'no-store', signal: AbortSignal.timeout(5000) });
    if (!answer.ok) {
      noPicture((await answer.json()).detail);
      return;
    }
    const old = image.src;
    image.src = URL.createObjectURL(await answer.blob());
    if (old) URL.revokeObjectURL(old);
    attribute(image, 'alt', `What goes out as ${rendition.name}`);
    text($('preview-note'), `What goes out as “${rendition.name}”, once a second`);
  } catch {
    noPicture('the box does not answer');
  }
}

function noPicture(why) {
  const image = $('preview');
  if (image.src) URL.revokeObjectURL(image.src);
  image.removeAttribute('src');
  attribute(image, 'alt', 'No picture');
  text($('preview-note'), `No picture: ${why}`);
}

async function pictures() {
  for (;;) {
    await picture();
    await new Promise((next) => setTimeout(next, 1000));
  }
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden) {
    connect();
    render();
    return;
  }
  page.source?.close();
  page.waiting = null;
  document.title = page.last?.name || 'Encoder'; // a state here would grow old
});
setInterval(render, 1000);
setInterval(watchLink, RETRY);
if (!document.hidden) connect();
pictures();
