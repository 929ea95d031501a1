// Players in a page; the tests call these functions and read the video's state.
'use strict';

const video = document.querySelector('video');
const problems = [];

// state says how the player is doing.
function state() {
  const { totalVideoFrames, droppedVideoFrames } = video.getVideoPlaybackQuality();
  return { frames: totalVideoFrames, dropped: droppedVideoFrames, time: video.currentTime, width: video.videoWidth, problems };
}

// The box's sound is a beep a second; a page can only tell that there is some.
function play() { return video.play().catch((error) => problems.push(String(error))); }

let peer, session;

async function whep(url, token) {
  peer = new RTCPeerConnection();
  const media = new MediaStream();
  video.srcObject = media;
  video.muted = false;
  peer.ontrack = ({ track }) => media.addTrack(track);
  peer.addTransceiver('video', { direction: 'recvonly' });
  peer.addTransceiver('audio', { direction: 'recvonly' });
  await peer.setLocalDescription();
  const headers = { 'Content-Type': 'application/sdp' };
  if (token) headers.Authorization = 'Bearer ' + token;
  const answer = await fetch(url, { method: 'POST', body: peer.localDescription.sdp, headers });
  if (answer.status !== 201) return answer.status;
  session = new URL(answer.headers.get('Location'), url);
  await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
  play();
  return answer.status;
}

// received is what getStats tells of each medium.
async function received() {
  const all = {};
  for (const report of (await peer.getStats()).values()) {
    if (report.type === 'inbound-rtp') all[report.kind] = report;
    if (report.type === 'codec') all[report.mimeType] = report;
  }
  return all;
}

async function hangUp() {
  const gone = await fetch(session, { method: 'DELETE' });
  peer.close();
  return gone.status;
}

let player;

function hls(url) {
  player = new Hls({ lowLatencyMode: true });
  player.on(Hls.Events.ERROR, (_, e) => { if (e.fatal) problems.push(e.details); });
  player.loadSource(url);
  player.attachMedia(video);
  play();
}

function dash(url) {
  player = dashjs.MediaPlayer().create();
  player.updateSettings({ streaming: { buffer: { fastSwitchEnabled: true }, abr: { limitBitrateByPortal: false } } });
  player.on('error', (e) => problems.push(JSON.stringify(e.error)));
  player.initialize(video, url, true);
}

function flv(type, url) {
  player = mpegts.createPlayer({ type, isLive: true, url }, { enableWorker: false, enableStashBuffer: false, liveBufferLatencyChasing: true });
  player.on('error', (kind, detail) => problems.push(kind + ' ' + detail));
  player.attachMediaElement(video);
  player.load();
  play();
}

// keep takes what a WebSocket sends for so many milliseconds and hands it to
// the test's server.
async function keep(url, length) {
  const parts = [];
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  socket.onmessage = ({ data }) => parts.push(data);
  await new Promise((done, fail) => { socket.onopen = done; socket.onerror = fail; });
  await new Promise((done) => setTimeout(done, length));
  socket.close();
  await fetch('/kept', { method: 'POST', body: new Blob(parts) });
}
