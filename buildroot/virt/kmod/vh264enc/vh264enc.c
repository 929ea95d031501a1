// SPDX-License-Identifier: GPL-2.0-only
/*
 * vh264enc - a virtual stateful H.264 encoder for tests.
 *
 * Behaves as Documentation/userspace-api/media/v4l/dev-encoder.rst asks of a
 * stateful memory-to-memory encoder and emits real H.264 (CAVLC, progressive,
 * one slice per picture) that any decoder accepts. Coding tools:
 *  - I_PCM macroblocks (lossless), P_Skip for macroblocks that did not change,
 *  - Intra16x16 DC without residual for macroblocks of an IDR picture that do
 *    not fit the bit budget (they are refined by later P pictures).
 * With a generous bitrate every picture is reproduced bit-exactly.
 *
 * How a stream ends lives in one place, "end of stream" below; the two buffer
 * queues are described by the table sides[].
 *
 * Copyright the encoderd authors
 */
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include <media/v4l2-ctrls.h>
#include <media/v4l2-device.h>
#include <media/v4l2-event.h>
#include <media/v4l2-ioctl.h>
#include <media/v4l2-mem2mem.h>
#include <media/videobuf2-vmalloc.h>

MODULE_DESCRIPTION("Virtual stateful H.264 encoder");
MODULE_LICENSE("GPL");

#define NAME "vh264enc"
#define MIN_DIM 16U
#define MAX_W 4096U
#define MAX_H 2304U
#define MB_PCM_BYTES 384
#define MB_PCM_COST (MB_PCM_BYTES + 3)
#define MB_MAX_BYTES 600		/* I_PCM of zeros: one emulation prevention byte per two */

static bool multiplanar = true;
module_param(multiplanar, bool, 0444);
MODULE_PARM_DESC(multiplanar, "multi-planar API (as most SoC encoders), else single-planar");
static unsigned int align = 16;
module_param(align, uint, 0444);
MODULE_PARM_DESC(align, "alignment of coded width and height of raw buffers (2, 16, 32 or 64)");
static unsigned int max_instances = 4;
module_param(max_instances, uint, 0644);
MODULE_PARM_DESC(max_instances, "contexts that may stream at once; one more gets -EBUSY at STREAMON");
/* fault injection, all writable at run time */
static unsigned int latency_us;
module_param(latency_us, uint, 0644);
MODULE_PARM_DESC(latency_us, "time one picture takes");
static int fail_in;
module_param(fail_in, int, 0644);
MODULE_PARM_DESC(fail_in, "N>0: the N-th picture from now on comes back with V4L2_BUF_FLAG_ERROR");
static bool hang;
module_param(hang, bool, 0644);
MODULE_PARM_DESC(hang, "while set no picture completes (STREAMOFF still works)");
static bool hang_stop;
module_param(hang_stop, bool, 0644);
MODULE_PARM_DESC(hang_stop, "while set STREAMOFF does not return; the end of its process ends the wait");
static unsigned int frames_done;
module_param(frames_done, uint, 0644);
MODULE_PARM_DESC(frames_done, "pictures encoded so far");

struct vh_fmt { u32 fourcc; u8 planes; bool mplane_only; };
static const struct vh_fmt raw_fmts[] = {
	{ V4L2_PIX_FMT_NV12, 1 }, { V4L2_PIX_FMT_YUV420, 1 }, { V4L2_PIX_FMT_YUYV, 1 },
	{ V4L2_PIX_FMT_NV12M, 2, true }, { V4L2_PIX_FMT_YUV420M, 3, true },
};
static const struct vh_fmt h264_fmt = { V4L2_PIX_FMT_H264, 1 };

struct vh_q {
	const struct vh_fmt *fmt;
	struct v4l2_pix_format_mplane pix;	/* used for both APIs */
	u32 sequence;
};

struct vh_dev {
	struct v4l2_device v4l2_dev;
	struct video_device vfd;
	struct media_device mdev;
	struct mutex mutex;
	struct v4l2_m2m_dev *m2m_dev;
	struct workqueue_struct *wq;
	atomic_t streaming;
};

struct vh_ctx {
	struct v4l2_fh fh;
	struct vh_dev *dev;
	struct v4l2_ctrl_handler hdl;
	struct mutex eos_lock;		/* held around each step that can end the stream */
	bool over_before;		/* the stream had ended when the step began */
	struct delayed_work work;
	bool aborting, counted;
	struct vh_q q[2];		/* indexed by RAW and ES */
	struct v4l2_rect crop;
	struct v4l2_fract tpf;
	/* controls */
	u32 bitrate, gop, profile, level, header_mode, cbr;
	bool rc, repeat_hdr, aud;
	atomic_t force_key;
	/* coder */
	u32 mbw, mbh, frame_in_gop, frame_num, idr_id, rr;
	bool hdr_sent;
	u8 *rec;			/* reconstruction, planar 4:2:0, coded size */
	u8 *cur;			/* current picture, same layout */
	u8 *changed, *pcm;		/* per macroblock */
	u8 *rbsp; size_t rbsp_cap;
};

/* the two sides of a context: the API's OUTPUT queue takes raw pictures, CAPTURE gives the elementary stream */
enum { RAW, ES };

static int side_of(const struct vb2_queue *vq) { return V4L2_TYPE_IS_CAPTURE(vq->type) ? ES : RAW; }
static struct vh_ctx *file2ctx(const struct file *f) { return container_of(f->private_data, struct vh_ctx, fh); }
static struct vh_q *get_q(struct vh_ctx *ctx, u32 type) { return ctx->q + !V4L2_TYPE_IS_OUTPUT(type); }

/* ---------------------------------------------------------------- bits */
struct bw { u8 *p; size_t n, cap; u32 acc; int bits; };

static void put(struct bw *b, int n, u32 v)
{
	while (n--) {
		b->acc = (b->acc << 1) | ((v >> n) & 1);
		if (++b->bits == 8) {
			if (b->n < b->cap)
				b->p[b->n] = b->acc;
			b->n++; b->bits = 0; b->acc = 0;
		}
	}
}
static void ue(struct bw *b, u32 v)
{
	int l = fls(v + 1);

	put(b, l - 1, 0); put(b, l, v + 1);
}
static void se(struct bw *b, int v) { ue(b, v > 0 ? 2 * v - 1 : -2 * v); }
static void align_zero(struct bw *b) { while (b->bits) put(b, 1, 0); }
static void trailing(struct bw *b) { put(b, 1, 1); align_zero(b); }
static void bytes(struct bw *b, const u8 *s, int n)
{
	if (b->n + n <= b->cap)
		memcpy(b->p + b->n, s, n);
	b->n += n;
}

/* NAL unit with start code and emulation prevention; -ENOSPC if it does not fit */
static int nal(u8 *dst, size_t cap, size_t *pos, u8 hdr, const u8 *s, size_t n)
{
	size_t o = *pos, i; int z = 0;

	if (o + n + 8 > cap)
		return -ENOSPC;
	dst[o++] = 0; dst[o++] = 0; dst[o++] = 0; dst[o++] = 1; dst[o++] = hdr;
	for (i = 0; i < n; i++) {
		if (z >= 2 && s[i] <= 3) {
			if (o + 1 >= cap)
				return -ENOSPC;
			dst[o++] = 3; z = 0;
		}
		if (o >= cap)
			return -ENOSPC;
		dst[o++] = s[i];
		z = s[i] ? 0 : z + 1;
	}
	*pos = o;
	return 0;
}

static const u8 level_idc[] = { 10, 9, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52, 60, 61, 62 };

static int put_headers(struct vh_ctx *ctx, u8 *dst, size_t cap, size_t *pos)
{
	const struct v4l2_pix_format_mplane *px = &ctx->q[RAW].pix;
	u8 buf[96]; struct bw b = { .p = buf, .cap = sizeof(buf) };
	u8 pidc = 66, cs = 0xc0, lev; u32 cr, cb; int r;
	u8 prim = 2, trc = 2, mtx = 2; u32 range;

	switch (ctx->profile) {
	case V4L2_MPEG_VIDEO_H264_PROFILE_BASELINE: pidc = 66; cs = 0x80; break;
	case V4L2_MPEG_VIDEO_H264_PROFILE_CONSTRAINED_BASELINE: pidc = 66; cs = 0xc0; break;
	case V4L2_MPEG_VIDEO_H264_PROFILE_MAIN: pidc = 77; cs = 0x40; break;
	case V4L2_MPEG_VIDEO_H264_PROFILE_HIGH: pidc = 100; cs = 0; break;
	}
	lev = level_idc[min_t(u32, ctx->level, ARRAY_SIZE(level_idc) - 1)];
	if (lev == 9 && pidc != 100) {	/* level 1b: constraint_set3_flag, A.3.1 */
		lev = 11; cs |= 0x10;
	}
	put(&b, 8, pidc); put(&b, 8, cs); put(&b, 8, lev);
	ue(&b, 0);
	if (pidc == 100) { ue(&b, 1); ue(&b, 0); ue(&b, 0); put(&b, 2, 0); }
	ue(&b, 4);			/* log2_max_frame_num = 8 */
	ue(&b, 2);			/* POC type 2: output order = coding order */
	ue(&b, 1); put(&b, 1, 0);	/* one reference */
	ue(&b, ctx->mbw - 1); ue(&b, ctx->mbh - 1);
	put(&b, 1, 1); put(&b, 1, 1);	/* frame_mbs_only, direct_8x8 */
	cr = (ctx->mbw * 16 - ctx->crop.width) / 2; cb = (ctx->mbh * 16 - ctx->crop.height) / 2;
	put(&b, 1, cr || cb);
	if (cr || cb) { ue(&b, 0); ue(&b, cr); ue(&b, 0); ue(&b, cb); }
	put(&b, 1, 1);			/* VUI */
	put(&b, 1, 1); put(&b, 8, 1);	/* SAR 1:1 */
	put(&b, 1, 0);
	switch (px->colorspace) {
	case V4L2_COLORSPACE_REC709: prim = trc = mtx = 1; break;
	case V4L2_COLORSPACE_SMPTE170M: prim = trc = mtx = 6; break;
	case V4L2_COLORSPACE_BT2020: prim = 9; trc = 14; mtx = 9; break;
	}
	range = px->quantization ?: V4L2_MAP_QUANTIZATION_DEFAULT(false, px->colorspace, px->ycbcr_enc);
	put(&b, 1, 1); put(&b, 3, 5); put(&b, 1, range == V4L2_QUANTIZATION_FULL_RANGE);
	put(&b, 1, 1); put(&b, 8, prim); put(&b, 8, trc); put(&b, 8, mtx);
	put(&b, 1, 0);
	put(&b, 1, 1);			/* timing */
	put(&b, 16, ctx->tpf.numerator >> 16); put(&b, 16, ctx->tpf.numerator);
	put(&b, 16, (ctx->tpf.denominator * 2) >> 16); put(&b, 16, ctx->tpf.denominator * 2);
	put(&b, 1, 1);
	put(&b, 1, 0); put(&b, 1, 0); put(&b, 1, 0);
	put(&b, 1, 1); put(&b, 1, 1); ue(&b, 0); ue(&b, 0); ue(&b, 16); ue(&b, 16); ue(&b, 0); ue(&b, 1);
	trailing(&b);
	r = nal(dst, cap, pos, 0x67, buf, b.n);
	if (r)
		return r;
	b = (struct bw){ .p = buf, .cap = sizeof(buf) };
	ue(&b, 0); ue(&b, 0); put(&b, 1, 0); put(&b, 1, 0); ue(&b, 0); ue(&b, 0); ue(&b, 0);
	put(&b, 1, 0); put(&b, 2, 0); se(&b, 0); se(&b, 0); se(&b, 0);
	put(&b, 1, 1); put(&b, 1, 0); put(&b, 1, 0);
	trailing(&b);
	return nal(dst, cap, pos, 0x68, buf, b.n);
}

/* ---------------------------------------------------------------- picture */
/* copy the source into ctx->cur (planar, macroblock aligned), repeating the visible edge */
static void load(struct vh_ctx *ctx, struct vb2_buffer *vb)
{
	const struct v4l2_pix_format_mplane *px = &ctx->q[RAW].pix;
	u32 W = ctx->mbw * 16, H = ctx->mbh * 16, vw = ctx->crop.width, vh = ctx->crop.height;
	u32 st = px->plane_fmt[0].bytesperline, x, y, cst = st, four = ctx->q[RAW].fmt->fourcc;
	u8 *Y = ctx->cur, *U = Y + W * H, *V = U + W * H / 4;
	const u8 *p0 = vb2_plane_vaddr(vb, 0), *p1 = NULL, *p2 = NULL;

	switch (four) {
	case V4L2_PIX_FMT_NV12: p1 = p0 + st * px->height; break;
	case V4L2_PIX_FMT_YUV420: p1 = p0 + st * px->height; cst = st / 2; p2 = p1 + cst * px->height / 2; break;
	case V4L2_PIX_FMT_NV12M: p1 = vb2_plane_vaddr(vb, 1); break;
	case V4L2_PIX_FMT_YUV420M: p1 = vb2_plane_vaddr(vb, 1); p2 = vb2_plane_vaddr(vb, 2); cst = px->plane_fmt[1].bytesperline; break;
	}
	for (y = 0; y < H; y++) {
		const u8 *s = p0 + st * min(y, vh - 1); u8 *d = Y + W * y;

		if (four == V4L2_PIX_FMT_YUYV)
			for (x = 0; x < vw; x++)
				d[x] = s[2 * x];
		else
			memcpy(d, s, vw);
		memset(d + vw, d[vw - 1], W - vw);
	}
	for (y = 0; y < H / 2; y++) {
		u32 yy = min(y, vh / 2 - 1), cw = vw / 2; u8 *du = U + W / 2 * y, *dv = V + W / 2 * y;

		if (four == V4L2_PIX_FMT_YUYV) {
			const u8 *s = p0 + st * (yy * 2);

			for (x = 0; x < cw; x++) { du[x] = s[4 * x + 1]; dv[x] = s[4 * x + 3]; }
		} else if (p2) {
			memcpy(du, p1 + cst * yy, cw); memcpy(dv, p2 + cst * yy, cw);
		} else {
			const u8 *s = p1 + cst * yy;

			for (x = 0; x < cw; x++) { du[x] = s[2 * x]; dv[x] = s[2 * x + 1]; }
		}
		memset(du + cw, du[cw - 1], W / 2 - cw); memset(dv + cw, dv[cw - 1], W / 2 - cw);
	}
}

static void mb_get(struct vh_ctx *ctx, const u8 *f, u32 mx, u32 my, u8 *o)
{
	u32 W = ctx->mbw * 16, H = ctx->mbh * 16, i;
	const u8 *y = f + my * 16 * W + mx * 16, *u = f + W * H + my * 8 * W / 2 + mx * 8, *v = u + W * H / 4;

	for (i = 0; i < 16; i++) memcpy(o + 16 * i, y + W * i, 16);
	for (i = 0; i < 8; i++) { memcpy(o + 256 + 8 * i, u + W / 2 * i, 8); memcpy(o + 320 + 8 * i, v + W / 2 * i, 8); }
}
static void mb_set(struct vh_ctx *ctx, u8 *f, u32 mx, u32 my, const u8 *s)
{
	u32 W = ctx->mbw * 16, H = ctx->mbh * 16, i;
	u8 *y = f + my * 16 * W + mx * 16, *u = f + W * H + my * 8 * W / 2 + mx * 8, *v = u + W * H / 4;

	for (i = 0; i < 16; i++) memcpy(y + W * i, s + 16 * i, 16);
	for (i = 0; i < 8; i++) { memcpy(u + W / 2 * i, s + 256 + 8 * i, 8); memcpy(v + W / 2 * i, s + 320 + 8 * i, 8); }
}
static bool mb_same(struct vh_ctx *ctx, u32 mx, u32 my)
{
	u32 W = ctx->mbw * 16, H = ctx->mbh * 16, i, o = my * 16 * W + mx * 16, c = W * H + my * 4 * W + mx * 8, c2 = c + W * H / 4;

	for (i = 0; i < 16; i++, o += W) if (memcmp(ctx->cur + o, ctx->rec + o, 16)) return false;
	for (i = 0; i < 8; i++, c += W / 2, c2 += W / 2)
		if (memcmp(ctx->cur + c, ctx->rec + c, 8) || memcmp(ctx->cur + c2, ctx->rec + c2, 8)) return false;
	return true;
}
/* reconstruction of an Intra16x16 DC macroblock without residual */
static void chroma_dc(u8 *p, int st, bool l, bool t)
{
	int bx, by, i, j;

	for (by = 0; by < 2; by++) for (bx = 0; bx < 2; bx++) {
		u8 *q = p + by * 4 * st + bx * 4; int sl = 0, tp = 0, dc;

		for (i = 0; i < 4; i++) { if (l) sl += p[(by * 4 + i) * st - 1]; if (t) tp += *(p + bx * 4 + i - st); }
		if (bx == by) dc = l && t ? (sl + tp + 4) >> 3 : l ? (sl + 2) >> 2 : t ? (tp + 2) >> 2 : 128;
		else if (bx) dc = t ? (tp + 2) >> 2 : l ? (sl + 2) >> 2 : 128;
		else dc = l ? (sl + 2) >> 2 : t ? (tp + 2) >> 2 : 128;
		for (j = 0; j < 4; j++) memset(q + j * st, dc, 4);
	}
}
static void mb_flat(struct vh_ctx *ctx, u32 mx, u32 my)
{
	int W = ctx->mbw * 16, H = ctx->mbh * 16, i; bool l = mx, t = my; int s = 0, dc;
	u8 *y = ctx->rec + my * 16 * W + mx * 16, *u = ctx->rec + W * H + my * 4 * W + mx * 8;

	for (i = 0; i < 16; i++) { if (l) s += y[i * W - 1]; if (t) s += *(y + i - W); }
	dc = l && t ? (s + 16) >> 5 : (l || t) ? (s + 8) >> 4 : 128;
	for (i = 0; i < 16; i++) memset(y + i * W, dc, 16);
	chroma_dc(u, W / 2, l, t); chroma_dc(u + W * H / 4, W / 2, l, t);
}

/* one picture; returns its size or a negative error */
static int encode(struct vh_ctx *ctx, struct vb2_buffer *src, u8 *dst, size_t cap, bool *key)
{
	u32 n = ctx->mbw * ctx->mbh, i, todo = 0, room = n, skip = 0;
	struct bw b = { .p = ctx->rbsp, .cap = ctx->rbsp_cap };
	bool idr = atomic_xchg(&ctx->force_key, 0) | !ctx->frame_in_gop;
	size_t pos = 0; u8 mb[MB_PCM_BYTES]; int r;
	u64 budget = 0;

	load(ctx, src);
	if (idr) { ctx->frame_in_gop = 0; ctx->frame_num = 0; }
	*key = idr;
	if (ctx->rc && ctx->bitrate) {
		budget = div64_u64((u64)ctx->bitrate * ctx->tpf.numerator, 8ULL * ctx->tpf.denominator);
		room = div_u64(budget * (idr ? 4 : 1), MB_PCM_COST);
	}
	for (i = 0; i < n; i++) {
		ctx->changed[i] = idr || !mb_same(ctx, i % ctx->mbw, i / ctx->mbw);
		ctx->pcm[i] = 0;
		todo += ctx->changed[i];
	}
	/* spend the budget from a moving start so that every macroblock gets its turn */
	for (i = 0; i < n && room; i++) {
		u32 k = (ctx->rr + i) % n;

		if (ctx->changed[k]) { ctx->pcm[k] = 1; room--; if (!room && todo) ctx->rr = (k + 1) % n; }
	}
	if (ctx->aud) { u8 a = idr ? 0x10 : 0x30; r = nal(dst, cap, &pos, 0x09, &a, 1); if (r) return r; }
	if (idr && (ctx->repeat_hdr || !ctx->hdr_sent)) { r = put_headers(ctx, dst, cap, &pos); if (r) return r; }

	ue(&b, 0); ue(&b, idr ? 7 : 5); ue(&b, 0); put(&b, 8, ctx->frame_num & 0xff);
	if (idr) ue(&b, ctx->idr_id & 0xff);
	if (!idr) { put(&b, 1, 0); put(&b, 1, 0); }
	if (idr) put(&b, 2, 0); else put(&b, 1, 0);
	se(&b, 0); ue(&b, 1);
	for (i = 0; i < n; i++) {
		u32 mx = i % ctx->mbw, my = i / ctx->mbw;

		if (ctx->pcm[i]) {
			if (!idr) { ue(&b, skip); skip = 0; }
			ue(&b, idr ? 25 : 30);
			align_zero(&b);
			mb_get(ctx, ctx->cur, mx, my, mb);
			bytes(&b, mb, sizeof(mb));
			mb_set(ctx, ctx->rec, mx, my, mb);
		} else if (!idr) {
			skip++;
		} else {
			int a = mx ? (ctx->pcm[i - 1] ? 16 : 0) : -1, t = my ? (ctx->pcm[i - ctx->mbw] ? 16 : 0) : -1;
			int nc = a >= 0 && t >= 0 ? (a + t + 1) >> 1 : a >= 0 ? a : t >= 0 ? t : 0;

			ue(&b, 3); ue(&b, 0); se(&b, 0);
			if (nc < 2) put(&b, 1, 1); else if (nc < 4) put(&b, 2, 3); else if (nc < 8) put(&b, 4, 15); else put(&b, 6, 3);
			mb_flat(ctx, mx, my);
		}
	}
	if (skip) ue(&b, skip);
	trailing(&b);
	if (b.n > b.cap)
		return -ENOSPC;
	r = nal(dst, cap, &pos, idr ? 0x65 : 0x41, ctx->rbsp, b.n);
	if (r)
		return r;
	if (ctx->cbr && budget && pos + 16 < budget && budget <= cap) {	/* filler data */
		dst[pos++] = 0; dst[pos++] = 0; dst[pos++] = 1; dst[pos++] = 0x0c;
		memset(dst + pos, 0xff, budget - pos - 1); pos = budget - 1; dst[pos++] = 0x80;
	}
	if (idr) { ctx->idr_id++; ctx->hdr_sent = true; }
	ctx->frame_num++;
	if (++ctx->frame_in_gop >= ctx->gop) ctx->frame_in_gop = 0;
	return pos;
}

/* ---------------------------------------------------------------- end of stream */
/*
 * The m2m core keeps the drain state: STOP names the newest raw buffer as the last one; the stream buffer made from it (or an
 * empty one, if no raw buffer is left) carries V4L2_BUF_FLAG_LAST, then the context counts as stopped until START.
 * Four things move that state: an encoder command, a finished picture, an empty stream buffer that arrives during a drain,
 * and STREAMOFF. Each runs between drain_step() and drain_settle(), so they exclude each other, and one EOS event goes
 * out exactly when a step took the context from running to stopped.
 */
static void drain_step(struct vh_ctx *ctx)
{
	mutex_lock(&ctx->eos_lock);
	ctx->over_before = v4l2_m2m_has_stopped(ctx->fh.m2m_ctx);
}
static void drain_announce(struct vh_ctx *ctx)
{
	static const struct v4l2_event over = { .type = V4L2_EVENT_EOS };

	if (v4l2_m2m_has_stopped(ctx->fh.m2m_ctx) > ctx->over_before)
		v4l2_event_queue_fh(&ctx->fh, &over);
	ctx->over_before = v4l2_m2m_has_stopped(ctx->fh.m2m_ctx);
}
static void drain_settle(struct vh_ctx *ctx)
{
	drain_announce(ctx);
	mutex_unlock(&ctx->eos_lock);
}

/* STREAMOFF and STREAMON of the raw side resume after a drain as START does (dev-encoder.rst, "Drain") */
static void drain_forget(struct vh_ctx *ctx)
{
	struct v4l2_m2m_ctx *m2m = ctx->fh.m2m_ctx;

	drain_step(ctx);
	if (v4l2_m2m_has_stopped(m2m)) {
		v4l2_m2m_clear_state(m2m);
		vb2_clear_last_buffer_dequeued(v4l2_m2m_get_dst_vq(m2m));
	}
	drain_settle(ctx);
}

/* describe the content of a stream buffer: len bytes (nothing if negative) that belong to the picture in raw */
static void label(struct vh_ctx *ctx, const struct vb2_v4l2_buffer *raw, struct vb2_v4l2_buffer *es, int len, u32 kind)
{
	const u32 ours = V4L2_BUF_FLAG_LAST | V4L2_BUF_FLAG_KEYFRAME | V4L2_BUF_FLAG_PFRAME | V4L2_BUF_FLAG_BFRAME;

	if (raw)
		v4l2_m2m_buf_copy_metadata(raw, es, false);
	es->flags = (es->flags & ~ours) | kind;
	es->sequence = ctx->q[ES].sequence++;
	es->field = V4L2_FIELD_NONE;
	vb2_set_plane_payload(&es->vb2_buf, 0, max(len, 0));
}

/* a raw picture and what became of it go back to the client together */
static void finish_pair(struct vh_ctx *ctx, struct vb2_v4l2_buffer *raw, struct vb2_v4l2_buffer *es, int len, bool key)
{
	enum vb2_buffer_state outcome = VB2_BUF_STATE_ERROR; u32 kind = 0;

	if (len >= 0) {
		outcome = VB2_BUF_STATE_DONE;
		kind = key ? V4L2_BUF_FLAG_KEYFRAME : V4L2_BUF_FLAG_PFRAME;
	}
	raw->sequence = ctx->q[RAW].sequence++;
	frames_done++;
	drain_step(ctx);
	label(ctx, raw, es, len, kind);
	if (v4l2_m2m_is_last_draining_src_buf(ctx->fh.m2m_ctx, raw)) {
		es->flags |= V4L2_BUF_FLAG_LAST;	/* not v4l2_m2m_last_buffer_done(): it would hide a failed picture */
		v4l2_m2m_mark_stopped(ctx->fh.m2m_ctx);
		drain_announce(ctx);			/* the event must be there before the client sees the buffer */
	}
	v4l2_m2m_src_buf_remove_by_buf(ctx->fh.m2m_ctx, raw);
	v4l2_m2m_buf_done(raw, outcome);
	v4l2_m2m_buf_done(es, outcome);
	drain_settle(ctx);
}

/* ---------------------------------------------------------------- jobs */
static void one_buffer(struct vh_ctx *ctx)
{
	struct vb2_v4l2_buffer *es = v4l2_m2m_dst_buf_remove(ctx->fh.m2m_ctx), *raw = v4l2_m2m_next_src_buf(ctx->fh.m2m_ctx);
	size_t room, used = 0; bool key = false; int len; u8 *to;

	if (WARN_ON(!es || !raw))
		return;
	to = vb2_plane_vaddr(&es->vb2_buf, 0);
	room = vb2_plane_size(&es->vb2_buf, 0);
	if (ctx->header_mode == V4L2_MPEG_VIDEO_HEADER_MODE_SEPARATE && !ctx->hdr_sent) {
		/* the headers have a buffer for themselves; the raw buffer stays for the next job */
		len = put_headers(ctx, to, room, &used);
		ctx->hdr_sent = true;
		label(ctx, raw, es, len ? 0 : used, 0);
		v4l2_m2m_buf_done(es, len ? VB2_BUF_STATE_ERROR : VB2_BUF_STATE_DONE);
		return;
	}
	len = fail_in > 0 && !--fail_in ? -EIO : encode(ctx, &raw->vb2_buf, to, room, &key);
	if (len < 0)
		ctx->frame_in_gop = 0;	/* resync with an IDR picture */
	finish_pair(ctx, raw, es, len, key);
}
static void vh_work(struct work_struct *w)
{
	struct vh_ctx *ctx = container_of(w, struct vh_ctx, work.work);

	if (!ctx->aborting && hang) {
		queue_delayed_work(ctx->dev->wq, &ctx->work, HZ / 50);
	} else {
		one_buffer(ctx);
		v4l2_m2m_job_finish(ctx->dev->m2m_dev, ctx->fh.m2m_ctx);
	}
}
static void job_begin(void *c)
{
	queue_delayed_work(((struct vh_ctx *)c)->dev->wq, &((struct vh_ctx *)c)->work, usecs_to_jiffies(latency_us));
}
static int job_allowed(void *c) { return !v4l2_m2m_has_stopped(((struct vh_ctx *)c)->fh.m2m_ctx); }
static void job_hurry(void *c)
{
	struct vh_ctx *ctx = c;

	ctx->aborting = true;		/* ends a hang and a long latency */
	mod_delayed_work(ctx->dev->wq, &ctx->work, 0);
}
static const struct v4l2_m2m_ops job_ops = { .job_ready = job_allowed, .device_run = job_begin, .job_abort = job_hurry };

/* ---------------------------------------------------------------- formats */
static const struct vh_fmt *find_raw(u32 f)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(raw_fmts); i++)
		if (raw_fmts[i].fourcc == f && (multiplanar || !raw_fmts[i].mplane_only))
			return &raw_fmts[i];
	return NULL;
}
static void fill_raw(struct v4l2_pix_format_mplane *p, const struct vh_fmt *f)
{
	u32 w, h;

	/* clamp first: ALIGN() of a huge number wraps around */
	p->width = w = ALIGN(clamp(p->width, MIN_DIM, MAX_W), align);
	p->height = h = ALIGN(clamp(p->height, MIN_DIM, MAX_H), align);
	p->pixelformat = f->fourcc; p->num_planes = f->planes; p->field = V4L2_FIELD_NONE; p->flags = 0;
	memset(p->reserved, 0, sizeof(p->reserved));
	switch (f->fourcc) {
	case V4L2_PIX_FMT_NV12: case V4L2_PIX_FMT_YUV420:
		p->plane_fmt[0].bytesperline = w; p->plane_fmt[0].sizeimage = w * h * 3 / 2; break;
	case V4L2_PIX_FMT_YUYV:
		p->plane_fmt[0].bytesperline = w * 2; p->plane_fmt[0].sizeimage = w * h * 2; break;
	case V4L2_PIX_FMT_NV12M:
		p->plane_fmt[0].bytesperline = w; p->plane_fmt[0].sizeimage = w * h;
		p->plane_fmt[1].bytesperline = w; p->plane_fmt[1].sizeimage = w * h / 2; break;
	case V4L2_PIX_FMT_YUV420M:
		p->plane_fmt[0].bytesperline = w; p->plane_fmt[0].sizeimage = w * h;
		p->plane_fmt[1].bytesperline = p->plane_fmt[2].bytesperline = w / 2;
		p->plane_fmt[1].sizeimage = p->plane_fmt[2].sizeimage = w * h / 4; break;
	}
}
static void fill_cap(struct vh_ctx *ctx, struct v4l2_pix_format_mplane *p)
{
	u32 w = ctx->q[RAW].pix.width, h = ctx->q[RAW].pix.height;
	u32 min = DIV_ROUND_UP(w, 16) * DIV_ROUND_UP(h, 16) * MB_MAX_BYTES + 4096;

	p->width = w; p->height = h; p->pixelformat = V4L2_PIX_FMT_H264; p->num_planes = 1; p->field = V4L2_FIELD_NONE;
	p->flags = 0; p->plane_fmt[0].bytesperline = 0;
	p->plane_fmt[0].sizeimage = clamp(p->plane_fmt[0].sizeimage, min, 64U << 20);
	p->colorspace = ctx->q[RAW].pix.colorspace; p->xfer_func = ctx->q[RAW].pix.xfer_func;
	p->ycbcr_enc = ctx->q[RAW].pix.ycbcr_enc; p->quantization = ctx->q[RAW].pix.quantization;
	memset(p->reserved, 0, sizeof(p->reserved));
}
static void from_user(const struct v4l2_format *f, struct v4l2_pix_format_mplane *p)
{
	if (V4L2_TYPE_IS_MULTIPLANAR(f->type)) { *p = f->fmt.pix_mp; return; }
	memset(p, 0, sizeof(*p));
	p->width = f->fmt.pix.width; p->height = f->fmt.pix.height; p->pixelformat = f->fmt.pix.pixelformat;
	p->field = f->fmt.pix.field; p->colorspace = f->fmt.pix.colorspace; p->plane_fmt[0].sizeimage = f->fmt.pix.sizeimage;
	p->xfer_func = f->fmt.pix.xfer_func; p->ycbcr_enc = f->fmt.pix.ycbcr_enc; p->quantization = f->fmt.pix.quantization;
}
static void to_user(struct v4l2_format *f, const struct v4l2_pix_format_mplane *p)
{
	if (V4L2_TYPE_IS_MULTIPLANAR(f->type)) { f->fmt.pix_mp = *p; return; }
	f->fmt.pix.width = p->width; f->fmt.pix.height = p->height; f->fmt.pix.pixelformat = p->pixelformat;
	f->fmt.pix.field = p->field; f->fmt.pix.colorspace = p->colorspace; f->fmt.pix.flags = 0;
	f->fmt.pix.bytesperline = p->plane_fmt[0].bytesperline; f->fmt.pix.sizeimage = p->plane_fmt[0].sizeimage;
	f->fmt.pix.xfer_func = p->xfer_func; f->fmt.pix.ycbcr_enc = p->ycbcr_enc; f->fmt.pix.quantization = p->quantization;
}
static bool type_ok(u32 t) { return V4L2_TYPE_IS_MULTIPLANAR(t) == multiplanar; }
static int vh_try(struct vh_ctx *ctx, struct v4l2_format *f, struct v4l2_pix_format_mplane *p, const struct vh_fmt **fmt)
{
	if (!type_ok(f->type))
		return -EINVAL;
	from_user(f, p);
	if (V4L2_TYPE_IS_OUTPUT(f->type)) {
		*fmt = find_raw(p->pixelformat) ?: &raw_fmts[0];
		fill_raw(p, *fmt);
		if (!p->colorspace) p->colorspace = V4L2_COLORSPACE_REC709;
	} else {
		*fmt = &h264_fmt;
		fill_cap(ctx, p);
	}
	return 0;
}
static int vh_try_fmt(struct file *file, void *priv, struct v4l2_format *f)
{
	struct v4l2_pix_format_mplane p; const struct vh_fmt *fmt; int r = vh_try(file2ctx(file), f, &p, &fmt);

	if (!r) to_user(f, &p);
	return r;
}
static int vh_g_fmt(struct file *file, void *priv, struct v4l2_format *f)
{
	if (!type_ok(f->type))
		return -EINVAL;
	to_user(f, &get_q(file2ctx(file), f->type)->pix);
	return 0;
}
static int vh_s_fmt(struct file *file, void *priv, struct v4l2_format *f)
{
	struct vh_ctx *ctx = file2ctx(file); struct v4l2_pix_format_mplane p; const struct vh_fmt *fmt;
	int r = vh_try(ctx, f, &p, &fmt);

	if (r)
		return r;
	if (vb2_is_busy(v4l2_m2m_get_vq(ctx->fh.m2m_ctx, f->type)))	/* vh_try() has checked the type */
		return -EBUSY;
	if (V4L2_TYPE_IS_OUTPUT(f->type)) {
		struct v4l2_pix_format_mplane c = ctx->q[ES].pix;

		if ((p.width != ctx->q[RAW].pix.width || p.height != ctx->q[RAW].pix.height) &&
		    vb2_is_busy(&ctx->fh.m2m_ctx->cap_q_ctx.q))
			return -EBUSY;
		ctx->q[RAW].pix = p; ctx->q[RAW].fmt = fmt;
		ctx->crop = (struct v4l2_rect){ 0, 0, p.width, p.height };
		fill_cap(ctx, &c); ctx->q[ES].pix = c;	/* keeps a larger size the client asked for */
	} else {
		ctx->q[ES].pix = p;
	}
	to_user(f, &p);
	return 0;
}
static int vh_enum_cap(struct file *file, void *priv, struct v4l2_fmtdesc *f)
{
	if (f->index || !type_ok(f->type))
		return -EINVAL;
	f->pixelformat = V4L2_PIX_FMT_H264;
	f->flags = V4L2_FMT_FLAG_COMPRESSED;
	return 0;
}
static int vh_enum_out(struct file *file, void *priv, struct v4l2_fmtdesc *f)
{
	u32 i, n = 0;

	if (!type_ok(f->type))
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(raw_fmts); i++)
		if ((multiplanar || !raw_fmts[i].mplane_only) && n++ == f->index) {
			f->pixelformat = raw_fmts[i].fourcc;
			return 0;
		}
	return -EINVAL;
}
static int vh_enum_size(struct file *file, void *fh, struct v4l2_frmsizeenum *s)
{
	if (s->index || (s->pixel_format != V4L2_PIX_FMT_H264 && !find_raw(s->pixel_format)))
		return -EINVAL;
	s->type = V4L2_FRMSIZE_TYPE_STEPWISE;
	s->stepwise = (struct v4l2_frmsize_stepwise){ ALIGN(MIN_DIM, align), MAX_W, align, ALIGN(MIN_DIM, align), MAX_H, align };
	return 0;
}
static int vh_enum_ival(struct file *file, void *fh, struct v4l2_frmivalenum *s)
{
	if (s->index || (s->pixel_format != V4L2_PIX_FMT_H264 && !find_raw(s->pixel_format)))
		return -EINVAL;
	if (s->width < MIN_DIM || s->width > MAX_W || s->height < MIN_DIM || s->height > MAX_H ||
	    s->width % align || s->height % align)
		return -EINVAL;
	s->type = V4L2_FRMIVAL_TYPE_CONTINUOUS;
	s->stepwise.min = (struct v4l2_fract){ 1, 240 }; s->stepwise.max = (struct v4l2_fract){ 1, 1 };
	s->stepwise.step = (struct v4l2_fract){ 1, 1 };
	return 0;
}
static int vh_g_parm(struct file *file, void *fh, struct v4l2_streamparm *a)
{
	struct vh_ctx *ctx = file2ctx(file);

	/* CAPTURE needs V4L2_FMT_FLAG_ENC_CAP_FRAME_INTERVAL, which this device lacks */
	if (!type_ok(a->type) || !V4L2_TYPE_IS_OUTPUT(a->type))
		return -EINVAL;
	a->parm.output.capability = V4L2_CAP_TIMEPERFRAME; a->parm.output.timeperframe = ctx->tpf;
	return 0;
}
static int vh_s_parm(struct file *file, void *fh, struct v4l2_streamparm *a)
{
	struct vh_ctx *ctx = file2ctx(file); struct v4l2_fract t;

	if (!type_ok(a->type) || !V4L2_TYPE_IS_OUTPUT(a->type))
		return -EINVAL;
	t = a->parm.output.timeperframe;
	if (!t.numerator || !t.denominator) t = (struct v4l2_fract){ 1, 30 };
	if (t.denominator / t.numerator > 240) t = (struct v4l2_fract){ 1, 240 };
	if (t.numerator > t.denominator) t = (struct v4l2_fract){ 1, 1 };
	v4l2_simplify_fraction(&t.numerator, &t.denominator, 8, 333);
	while (t.denominator > BIT(30)) {	/* time_scale, twice this, has 32 bits */
		t.numerator >>= 1; t.denominator >>= 1;
	}
	ctx->tpf = t;
	return vh_g_parm(file, fh, a);
}
static int vh_g_sel(struct file *file, void *priv, struct v4l2_selection *s)
{
	struct vh_ctx *ctx = file2ctx(file);

	if (s->type != V4L2_BUF_TYPE_VIDEO_OUTPUT)
		return -EINVAL;
	switch (s->target) {
	case V4L2_SEL_TGT_CROP: s->r = ctx->crop; return 0;
	case V4L2_SEL_TGT_CROP_DEFAULT: case V4L2_SEL_TGT_CROP_BOUNDS:
		s->r = (struct v4l2_rect){ 0, 0, ctx->q[RAW].pix.width, ctx->q[RAW].pix.height }; return 0;
	}
	return -EINVAL;
}
static int vh_s_sel(struct file *file, void *priv, struct v4l2_selection *s)
{
	struct vh_ctx *ctx = file2ctx(file); struct vh_q *q = &ctx->q[RAW];

	if (s->type != V4L2_BUF_TYPE_VIDEO_OUTPUT || s->target != V4L2_SEL_TGT_CROP)
		return -EINVAL;
	if (vb2_is_streaming(&ctx->fh.m2m_ctx->out_q_ctx.q))
		return -EBUSY;
	ctx->crop.left = ctx->crop.top = 0;
	ctx->crop.width = clamp(s->r.width & ~1U, 2U, q->pix.width);
	ctx->crop.height = clamp(s->r.height & ~1U, 2U, q->pix.height);
	s->r = ctx->crop;
	return 0;
}
static int vh_enc_cmd(struct file *file, void *fh, struct v4l2_encoder_cmd *cmd)
{
	struct vh_ctx *ctx = file2ctx(file); struct v4l2_m2m_ctx *m2m = ctx->fh.m2m_ctx;
	int r = v4l2_m2m_ioctl_try_encoder_cmd(file, fh, cmd); bool resume = cmd->cmd == V4L2_ENC_CMD_START;

	if (r || !vb2_is_streaming(v4l2_m2m_get_src_vq(m2m)))
		return r;		/* no raw stream: nothing to drain or resume, which is no error */
	drain_step(ctx);
	r = m2m->is_draining ? -EBUSY : v4l2_m2m_encoder_cmd(file, m2m, cmd);	/* START too, says dev-encoder.rst; the core lets it pass */
	if (!r && resume)		/* DQBUF may wait again instead of -EPIPE */
		vb2_clear_last_buffer_dequeued(v4l2_m2m_get_dst_vq(m2m));
	drain_settle(ctx);
	if (!r && resume)
		v4l2_m2m_try_schedule(m2m);	/* raw buffers that arrived after STOP */
	return r;
}
static int vh_querycap(struct file *file, void *priv, struct v4l2_capability *c)
{
	strscpy(c->driver, NAME, sizeof(c->driver)); strscpy(c->card, NAME, sizeof(c->card));
	snprintf(c->bus_info, sizeof(c->bus_info), "platform:%s", NAME);
	return 0;
}
static int vh_subscribe(struct v4l2_fh *fh, const struct v4l2_event_subscription *want)
{
	if (want->type != V4L2_EVENT_EOS)
		return v4l2_ctrl_subscribe_event(fh, want);
	return v4l2_event_subscribe(fh, want, 2, NULL);
}
#define CORE(op) .vidioc_##op = v4l2_m2m_ioctl_##op
#define FMT(op, dir) .vidioc_##op##_fmt_vid_##dir = vh_##op##_fmt, .vidioc_##op##_fmt_vid_##dir##_mplane = vh_##op##_fmt
static const struct v4l2_ioctl_ops ioctl_ops = {
	.vidioc_querycap = vh_querycap,
	/* what a client negotiates */
	.vidioc_enum_fmt_vid_out = vh_enum_out, FMT(try, out), FMT(s, out), FMT(g, out),
	.vidioc_enum_fmt_vid_cap = vh_enum_cap, FMT(try, cap), FMT(s, cap), FMT(g, cap),
	.vidioc_enum_framesizes = vh_enum_size, .vidioc_enum_frameintervals = vh_enum_ival,
	.vidioc_s_parm = vh_s_parm, .vidioc_g_parm = vh_g_parm,
	.vidioc_s_selection = vh_s_sel, .vidioc_g_selection = vh_g_sel,
	/* buffers */
	CORE(reqbufs), CORE(create_bufs), CORE(remove_bufs), CORE(prepare_buf),
	CORE(querybuf), CORE(expbuf), CORE(qbuf), CORE(dqbuf),
	/* run and end */
	CORE(streamon), CORE(streamoff), CORE(try_encoder_cmd), .vidioc_encoder_cmd = vh_enc_cmd,
	.vidioc_unsubscribe_event = v4l2_event_unsubscribe, .vidioc_subscribe_event = vh_subscribe,
};
#undef CORE
#undef FMT

/* ---------------------------------------------------------------- queues */
static void coder_free(struct vh_ctx *ctx)
{
	vfree(ctx->rec); vfree(ctx->cur); vfree(ctx->changed); vfree(ctx->rbsp);
	ctx->rec = ctx->cur = ctx->changed = ctx->rbsp = NULL;
	if (ctx->counted) { atomic_dec(&ctx->dev->streaming); ctx->counted = false; }
}
static int raw_on(struct vh_ctx *ctx)
{
	u32 n;

	if (atomic_inc_return(&ctx->dev->streaming) > max_instances) {
		atomic_dec(&ctx->dev->streaming);
		return -EBUSY;
	}
	ctx->counted = true;
	ctx->mbw = DIV_ROUND_UP(ctx->crop.width, 16); ctx->mbh = DIV_ROUND_UP(ctx->crop.height, 16);
	n = ctx->mbw * ctx->mbh;
	ctx->rbsp_cap = n * (MB_PCM_BYTES + 8) + 256;
	ctx->rec = vzalloc(n * MB_PCM_BYTES); ctx->cur = vmalloc(n * MB_PCM_BYTES);
	ctx->changed = vmalloc(2 * n); ctx->rbsp = vmalloc(ctx->rbsp_cap);
	ctx->frame_in_gop = ctx->rr = 0;
	ctx->hdr_sent = false;		/* crop, interval or profile may be new */
	if (!ctx->rec || !ctx->cur || !ctx->changed || !ctx->rbsp) {
		coder_free(ctx);
		return -ENOMEM;
	}
	ctx->pcm = ctx->changed + n;
	return 0;
}
static int es_on(struct vh_ctx *ctx)
{
	ctx->hdr_sent = false;		/* a restarted stream begins with headers and an IDR picture */
	ctx->frame_in_gop = 0;
	return 0;
}
static void es_off(struct vh_ctx *ctx) {}

static const struct vh_side {
	u32 type[2];			/* by `multiplanar` */
	int (*on)(struct vh_ctx *ctx);
	void (*off)(struct vh_ctx *ctx);
} sides[] = {
	[RAW] = { { V4L2_BUF_TYPE_VIDEO_OUTPUT, V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE }, raw_on, coder_free },
	[ES] = { { V4L2_BUF_TYPE_VIDEO_CAPTURE, V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE }, es_on, es_off },
};

/* hand every waiting buffer of one side back to videobuf2 */
static void side_empty(struct vh_ctx *ctx, int side, enum vb2_buffer_state as)
{
	struct v4l2_m2m_ctx *m2m = ctx->fh.m2m_ctx; struct vb2_v4l2_buffer *b;

	do {
		b = v4l2_m2m_buf_remove(side == RAW ? &m2m->out_q_ctx : &m2m->cap_q_ctx);
		if (b)
			v4l2_m2m_buf_done(b, as);
	} while (b);
}
static int side_on(struct vb2_queue *vq, unsigned int queued)
{
	struct vh_ctx *ctx = vb2_get_drv_priv(vq); int side = side_of(vq), r;

	ctx->q[side].sequence = 0;
	ctx->aborting = false;
	v4l2_m2m_update_start_streaming_state(ctx->fh.m2m_ctx, vq);
	r = sides[side].on(ctx);
	if (r) {
		side_empty(ctx, side, VB2_BUF_STATE_QUEUED);
		return r;
	}
	if (side == RAW)
		drain_forget(ctx);
	return 0;
}
/* like hardware that does not answer: with the device's lock held, so that other calls on the node wait as well */
static void stop_hangs(void)
{
	while (hang_stop && !(current->flags & PF_EXITING) && !fatal_signal_pending(current))
		schedule_timeout_killable(HZ / 50);
}
static void side_off(struct vb2_queue *vq)
{
	struct vh_ctx *ctx = vb2_get_drv_priv(vq); int side = side_of(vq);

	stop_hangs();
	cancel_delayed_work_sync(&ctx->work);
	drain_step(ctx);
	side_empty(ctx, side, VB2_BUF_STATE_ERROR);
	v4l2_m2m_update_stop_streaming_state(ctx->fh.m2m_ctx, vq);
	drain_settle(ctx);
	sides[side].off(ctx);
}
static int sizes(struct vb2_queue *vq, unsigned int *count, unsigned int *planes, unsigned int bytes[], struct device *alloc[])
{
	const struct vh_ctx *ctx = vb2_get_drv_priv(vq); const struct v4l2_pix_format_mplane *pix = &ctx->q[side_of(vq)].pix;
	bool given = *planes; u32 i;	/* CREATE_BUFS brings sizes of its own */

	if (given && *planes != pix->num_planes)
		return -EINVAL;
	for (i = *planes = pix->num_planes; i--;) {
		if (!given)
			bytes[i] = pix->plane_fmt[i].sizeimage;
		else if (bytes[i] < pix->plane_fmt[i].sizeimage)
			return -EINVAL;
	}
	return 0;
}
static int buf_fits(struct vb2_buffer *vb)
{
	const struct vh_ctx *ctx = vb2_get_drv_priv(vb->vb2_queue); const struct vh_q *q = &ctx->q[side_of(vb->vb2_queue)];
	u32 plane = 0;

	while (plane < q->pix.num_planes && vb2_plane_size(vb, plane) >= q->pix.plane_fmt[plane].sizeimage)
		plane++;
	return plane == q->pix.num_planes ? 0 : -EINVAL;
}
static int buf_progressive(struct vb2_buffer *vb)
{
	to_vb2_v4l2_buffer(vb)->field = V4L2_FIELD_NONE;
	return 0;
}
static void buf_take(struct vb2_buffer *vb)
{
	struct vh_ctx *ctx = vb2_get_drv_priv(vb->vb2_queue); struct vb2_v4l2_buffer *b = to_vb2_v4l2_buffer(vb);
	struct v4l2_m2m_ctx *m2m = ctx->fh.m2m_ctx; bool ends;

	drain_step(ctx);
	ends = side_of(vb->vb2_queue) == ES && v4l2_m2m_dst_buf_is_last(m2m) && vb2_is_streaming(vb->vb2_queue);
	if (ends) {			/* the drain has no picture left and waited for an empty buffer */
		label(ctx, NULL, b, 0, 0);
		v4l2_m2m_mark_stopped(m2m);
		drain_announce(ctx);
		v4l2_m2m_last_buffer_done(m2m, b);
	} else {
		v4l2_m2m_buf_queue(m2m, b);
	}
	drain_settle(ctx);
}
static const struct vb2_ops side_ops = {
	.start_streaming = side_on, .stop_streaming = side_off, .queue_setup = sizes,
	.buf_prepare = buf_fits, .buf_out_validate = buf_progressive, .buf_queue = buf_take,
	.wait_finish = vb2_ops_wait_finish, .wait_prepare = vb2_ops_wait_prepare,
};
static int side_init(struct vh_ctx *ctx, int side, struct vb2_queue *vq)
{
	vq->type = sides[side].type[multiplanar];
	vq->ops = &side_ops;
	vq->drv_priv = ctx;
	vq->mem_ops = &vb2_vmalloc_memops;
	vq->dev = ctx->dev->v4l2_dev.dev;
	vq->lock = &ctx->dev->mutex;
	vq->io_modes = VB2_DMABUF | VB2_MMAP | VB2_USERPTR;
	vq->timestamp_flags = V4L2_BUF_FLAG_TIMESTAMP_COPY;
	vq->buf_struct_size = sizeof(struct v4l2_m2m_buffer);
	return vb2_queue_init(vq);
}
static int sides_init(void *ctx, struct vb2_queue *raw, struct vb2_queue *es)
{
	return side_init(ctx, RAW, raw) ?: side_init(ctx, ES, es);
}

/* ---------------------------------------------------------------- controls */
static int vh_s_ctrl(struct v4l2_ctrl *c)
{
	struct vh_ctx *ctx = container_of(c->handler, struct vh_ctx, hdl);

	switch (c->id) {
	case V4L2_CID_MPEG_VIDEO_BITRATE: ctx->bitrate = c->val; break;
	case V4L2_CID_MPEG_VIDEO_BITRATE_MODE: ctx->cbr = c->val == V4L2_MPEG_VIDEO_BITRATE_MODE_CBR; break;
	case V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE: ctx->rc = c->val; break;
	case V4L2_CID_MPEG_VIDEO_GOP_SIZE: ctx->gop = c->val; break;
	case V4L2_CID_MPEG_VIDEO_H264_PROFILE: ctx->profile = c->val; break;
	case V4L2_CID_MPEG_VIDEO_H264_LEVEL: ctx->level = c->val; break;
	case V4L2_CID_MPEG_VIDEO_HEADER_MODE: ctx->header_mode = c->val; break;
	case V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER: ctx->repeat_hdr = c->val; break;
	case V4L2_CID_MPEG_VIDEO_AU_DELIMITER: ctx->aud = c->val; break;
	case V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME: atomic_set(&ctx->force_key, 1); break;
	case V4L2_CID_MPEG_VIDEO_B_FRAMES: case V4L2_CID_MPEG_VIDEO_H264_MIN_QP: case V4L2_CID_MPEG_VIDEO_H264_MAX_QP: break;
	default: return -EINVAL;
	}
	return 0;
}
static const struct v4l2_ctrl_ops ctrl_ops = { .s_ctrl = vh_s_ctrl };

static int vh_open(struct file *file)
{
	struct vh_dev *dev = video_drvdata(file); struct vh_ctx *ctx; struct v4l2_ctrl_handler *h; int r = 0;

	ctx = kzalloc(sizeof(*ctx), GFP_KERNEL);
	if (!ctx)
		return -ENOMEM;
	file->private_data = &ctx->fh;
	v4l2_fh_init(file->private_data, &dev->vfd);
	ctx->dev = dev; mutex_init(&ctx->eos_lock); INIT_DELAYED_WORK(&ctx->work, vh_work);
	ctx->tpf = (struct v4l2_fract){ 1, 30 };
	ctx->q[RAW].fmt = &raw_fmts[0]; ctx->q[ES].fmt = &h264_fmt;
	ctx->q[RAW].pix.width = 1280; ctx->q[RAW].pix.height = 720; ctx->q[RAW].pix.colorspace = V4L2_COLORSPACE_REC709;
	fill_raw(&ctx->q[RAW].pix, &raw_fmts[0]); fill_cap(ctx, &ctx->q[ES].pix);
	ctx->crop = (struct v4l2_rect){ 0, 0, ctx->q[RAW].pix.width, ctx->q[RAW].pix.height };

	h = &ctx->hdl; v4l2_ctrl_handler_init(h, 16);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_BITRATE, 16000, 800000000, 1, 4000000);
	v4l2_ctrl_new_std_menu(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_BITRATE_MODE, V4L2_MPEG_VIDEO_BITRATE_MODE_CBR, 0, V4L2_MPEG_VIDEO_BITRATE_MODE_VBR);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE, 0, 1, 1, 1);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_GOP_SIZE, 1, 600, 1, 30);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_B_FRAMES, 0, 0, 1, 0);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_MIN_QP, 0, 51, 1, 0);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_MAX_QP, 0, 51, 1, 51);
	v4l2_ctrl_new_std_menu(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_PROFILE, V4L2_MPEG_VIDEO_H264_PROFILE_HIGH,
			       ~(BIT(V4L2_MPEG_VIDEO_H264_PROFILE_BASELINE) | BIT(V4L2_MPEG_VIDEO_H264_PROFILE_CONSTRAINED_BASELINE) |
				 BIT(V4L2_MPEG_VIDEO_H264_PROFILE_MAIN) | BIT(V4L2_MPEG_VIDEO_H264_PROFILE_HIGH)),
			       V4L2_MPEG_VIDEO_H264_PROFILE_CONSTRAINED_BASELINE);
	v4l2_ctrl_new_std_menu(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_LEVEL, V4L2_MPEG_VIDEO_H264_LEVEL_5_1, 0, V4L2_MPEG_VIDEO_H264_LEVEL_4_0);
	v4l2_ctrl_new_std_menu(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_HEADER_MODE, V4L2_MPEG_VIDEO_HEADER_MODE_JOINED_WITH_1ST_FRAME, 0,
			       V4L2_MPEG_VIDEO_HEADER_MODE_JOINED_WITH_1ST_FRAME);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER, 0, 1, 1, 0);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_AU_DELIMITER, 0, 1, 1, 0);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, 0, 0, 0, 0);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MIN_BUFFERS_FOR_OUTPUT, 1, 1, 1, 1);
	if (h->error) { r = h->error; goto err; }
	ctx->fh.ctrl_handler = h; v4l2_ctrl_handler_setup(h);
	atomic_set(&ctx->force_key, 0);
	ctx->fh.m2m_ctx = v4l2_m2m_ctx_init(dev->m2m_dev, ctx, sides_init);
	if (IS_ERR(ctx->fh.m2m_ctx)) { r = PTR_ERR(ctx->fh.m2m_ctx); goto err; }
	v4l2_fh_add(&ctx->fh);
	return 0;
err:
	v4l2_ctrl_handler_free(h); v4l2_fh_exit(&ctx->fh); kfree(ctx);
	return r;
}
static int vh_release(struct file *file)
{
	struct vh_ctx *ctx = file2ctx(file);

	v4l2_fh_del(&ctx->fh);			/* no more events */
	scoped_guard(mutex, &ctx->dev->mutex)
		v4l2_m2m_ctx_release(ctx->fh.m2m_ctx);	/* waits for the job, STREAMOFF on both sides */
	cancel_delayed_work_sync(&ctx->work);	/* its last lines may still run */
	coder_free(ctx);
	v4l2_ctrl_handler_free(&ctx->hdl);
	v4l2_fh_exit(&ctx->fh);
	mutex_destroy(&ctx->eos_lock);
	kfree(ctx);
	return 0;
}
static const struct v4l2_file_operations fops = {
	.owner = THIS_MODULE, .open = vh_open, .release = vh_release, .poll = v4l2_m2m_fop_poll,
	.unlocked_ioctl = video_ioctl2, .mmap = v4l2_m2m_fop_mmap,
};
static void vh_dev_release(struct v4l2_device *v)
{
	struct vh_dev *dev = container_of(v, struct vh_dev, v4l2_dev);

	v4l2_device_unregister(v); v4l2_m2m_release(dev->m2m_dev); destroy_workqueue(dev->wq);
	media_device_cleanup(&dev->mdev); kfree(dev);
}
static int vh_probe(struct platform_device *pdev)
{
	struct vh_dev *dev = kzalloc(sizeof(*dev), GFP_KERNEL); struct video_device *vfd; int r;

	if (!dev)
		return -ENOMEM;
	r = v4l2_device_register(&pdev->dev, &dev->v4l2_dev);
	if (r) { kfree(dev); return r; }
	mutex_init(&dev->mutex);
	dev->wq = alloc_ordered_workqueue(NAME, 0);
	if (!dev->wq) { r = -ENOMEM; goto err_v4l2; }
	dev->m2m_dev = v4l2_m2m_init(&job_ops);
	if (IS_ERR(dev->m2m_dev)) { r = PTR_ERR(dev->m2m_dev); goto err_wq; }
	dev->mdev.dev = &pdev->dev; strscpy(dev->mdev.model, NAME, sizeof(dev->mdev.model));
	strscpy(dev->mdev.bus_info, "platform:" NAME, sizeof(dev->mdev.bus_info));
	dev->v4l2_dev.mdev = &dev->mdev; media_device_init(dev->v4l2_dev.mdev);
	dev->v4l2_dev.release = vh_dev_release;	/* from here on v4l2_device_put() frees all of it */
	platform_set_drvdata(pdev, dev);
	vfd = &dev->vfd; strscpy(vfd->name, NAME, sizeof(vfd->name));
	vfd->vfl_dir = VFL_DIR_M2M; vfd->fops = &fops; vfd->ioctl_ops = &ioctl_ops; vfd->minor = -1;
	vfd->release = video_device_release_empty; vfd->lock = &dev->mutex; vfd->v4l2_dev = &dev->v4l2_dev;
	vfd->device_caps = V4L2_CAP_STREAMING | (multiplanar ? V4L2_CAP_VIDEO_M2M_MPLANE : V4L2_CAP_VIDEO_M2M);
	video_set_drvdata(vfd, dev);
	r = video_register_device(vfd, VFL_TYPE_VIDEO, 0);
	if (r) goto err;
	r = v4l2_m2m_register_media_controller(dev->m2m_dev, vfd, MEDIA_ENT_F_PROC_VIDEO_ENCODER);
	if (r) goto err_vid;
	r = media_device_register(&dev->mdev);
	if (r) goto err_mc;
	return 0;
err_mc:
	v4l2_m2m_unregister_media_controller(dev->m2m_dev);
err_vid:
	video_unregister_device(vfd);
err:
	v4l2_device_put(&dev->v4l2_dev);
	return r;
err_wq:
	destroy_workqueue(dev->wq);
err_v4l2:
	v4l2_device_unregister(&dev->v4l2_dev);
	kfree(dev);
	return r;
}
static void vh_remove(struct platform_device *pdev)
{
	struct vh_dev *dev = platform_get_drvdata(pdev);

	media_device_unregister(&dev->mdev);
	v4l2_m2m_unregister_media_controller(dev->m2m_dev);
	video_unregister_device(&dev->vfd);
	v4l2_device_put(&dev->v4l2_dev);
}
static void pdev_release(struct device *d) {}
static struct platform_device pdev = { .name = NAME, .dev.release = pdev_release };
static struct platform_driver pdrv = { .probe = vh_probe, .remove = vh_remove, .driver = { .name = NAME } };
static int __init vh_init(void)
{
	int r;

	if (align != 2 && align != 16 && align != 32 && align != 64)
		return -EINVAL;
	r = platform_device_register(&pdev);
	if (r)
		return r;
	r = platform_driver_register(&pdrv);
	if (r)
		platform_device_unregister(&pdev);
	return r;
}
static void __exit vh_exit(void)
{
	platform_driver_unregister(&pdrv);
	platform_device_unregister(&pdev);
}
module_init(vh_init);
module_exit(vh_exit);
