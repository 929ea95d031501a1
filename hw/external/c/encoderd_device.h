/*
 * The messages between encoderd and a device program, version 1. What they
 * mean, who sends them and when stands in docs/external-devices.md.
 *
 * One message a datagram of the SOCK_SEQPACKET socket ENCODERD_FD, begun by a
 * header; little-endian, no padding.
 */
#ifndef ENCODERD_DEVICE_H
#define ENCODERD_DEVICE_H

#include <stdint.h>

#define ENCODERD_VERSION 1
#define ENCODERD_FD 3
#define ENCODERD_MAX_MESSAGE 4096
#define ENCODERD_MAX_BUFFERS 16
#define ENCODERD_MAX_MODES 64
#define ENCODERD_MAX_FORMATS 8

enum encoderd_type {
	ENCODERD_HELLO_CAMERA = 1,
	ENCODERD_HELLO_ENCODER = 2,
	ENCODERD_ERROR = 3,
	ENCODERD_STOP = 4,
	ENCODERD_BYE = 5,
	ENCODERD_OPEN_CAMERA = 16,
	ENCODERD_CAMERA_OPENED = 17,
	ENCODERD_BUFFERS = 18,
	ENCODERD_START = 19,
	ENCODERD_FRAME = 20,
	ENCODERD_RELEASE = 21,
	ENCODERD_SIGNAL = 22,
	ENCODERD_OPEN_ENCODER = 32,
	ENCODERD_ENCODER_OPENED = 33,
	ENCODERD_ALLOCATE = 34,
	ENCODERD_ATTACH = 35,
	ENCODERD_DETACH = 36,
	ENCODERD_SUBMIT = 37,
	ENCODERD_RETURNED = 38,
	ENCODERD_UNIT = 39,
	ENCODERD_TAKEN = 40,
	ENCODERD_BITRATE = 41,
};

enum encoderd_error_code {
	ENCODERD_FAILED = 0,
	ENCODERD_GONE = 1,
	ENCODERD_BUSY = 2,
	ENCODERD_NO_SIGNAL = 3,
	ENCODERD_UNSUPPORTED = 4,
	ENCODERD_MISSING = 5,
};

/* Flags, by the message that they stand in. */
enum {
	ENCODERD_MODE_FULL_RANGE = 1,
	ENCODERD_HELLO_SIGNAL_INPUT = 1,
	ENCODERD_HELLO_SIGNAL_THERE = 2,
	ENCODERD_HELLO_READS_SHARED = 1,
	ENCODERD_HELLO_READS_DMABUF = 2,
	ENCODERD_HELLO_ALLOCATES = 4,
	ENCODERD_CODEC_H264 = 1,
	ENCODERD_FORMAT_ANY_STRIDE = 1,
	ENCODERD_FORMAT_ANY_PLACE = 2,
	ENCODERD_OPENED_EXPORTS = 1,
	ENCODERD_OPENED_IMPORTS = 2,
	ENCODERD_BUFFERS_DMABUF = 1,
	ENCODERD_ATTACH_DMABUF = 1,
	ENCODERD_START_USE_SENT = 1,
	ENCODERD_FRAME_DAMAGED = 1,
	ENCODERD_SUBMIT_KEY_FRAME = 1,
};

struct encoderd_header {
	uint32_t type, length; /* length counts the header too */
};

struct encoderd_mode {
	uint32_t pixel, width, height, rate_num, rate_den, flags;
};

struct encoderd_plane {
	uint32_t buffer, offset, stride;
};

struct encoderd_layout {
	uint32_t pixel, width, height;
	struct encoderd_plane planes[3];
	uint32_t sizes[3];
	uint32_t reserved;
};

struct encoderd_format {
	uint32_t pixel, stride_align, lines_align, flags;
};

struct encoderd_hello_camera {
	struct encoderd_header header;
	uint32_t version, flags, modes, reserved;
	char name[64];
	struct encoderd_mode mode[ENCODERD_MAX_MODES];
	char parent[256];
};

struct encoderd_hello_encoder {
	struct encoderd_header header;
	uint32_t version, flags, codecs, budget;
	uint32_t min_width, min_height, max_width, max_height, step;
	uint32_t formats, reserved, reserved2;
	char name[64];
	struct encoderd_format format[ENCODERD_MAX_FORMATS];
	char parent[256];
};

struct encoderd_error {
	struct encoderd_header header;
	uint32_t code, reserved;
	char text[248];
};

struct encoderd_stop {
	struct encoderd_header header;
};

struct encoderd_bye {
	struct encoderd_header header;
};

struct encoderd_open_camera {
	struct encoderd_header header;
	struct encoderd_mode mode;
	uint32_t buffers, reserved;
};

struct encoderd_camera_opened {
	struct encoderd_header header;
	struct encoderd_mode mode;
	uint32_t flags, reserved;
	struct encoderd_layout layout;
};

struct encoderd_buffers {
	struct encoderd_header header;
	uint32_t count, flags;
	struct encoderd_layout layout;
};

struct encoderd_start {
	struct encoderd_header header;
	uint32_t flags, reserved;
};

struct encoderd_frame {
	struct encoderd_header header;
	uint32_t index, seq;
	int64_t stamp;
	uint32_t used[3];
	uint32_t flags;
};

struct encoderd_release {
	struct encoderd_header header;
	uint32_t index, reserved;
};

struct encoderd_signal {
	struct encoderd_header header;
	uint32_t there, reserved;
};

struct encoderd_open_encoder {
	struct encoderd_header header;
	uint32_t codec, width, height, rate_num, rate_den, gop, bitrate, ring_size;
	char profile[16];
	struct encoderd_layout layout;
};

struct encoderd_encoder_opened {
	struct encoderd_header header;
	uint32_t inflight, reserved;
};

struct encoderd_allocate {
	struct encoderd_header header;
	uint32_t count, reserved;
	struct encoderd_layout layout;
};

struct encoderd_attach {
	struct encoderd_header header;
	uint32_t index, flags;
};

struct encoderd_detach {
	struct encoderd_header header;
	uint32_t index, reserved;
};

struct encoderd_submit {
	struct encoderd_header header;
	uint32_t index, flags;
	int64_t stamp;
};

struct encoderd_returned {
	struct encoderd_header header;
	uint32_t index, reserved;
};

struct encoderd_unit {
	struct encoderd_header header;
	uint64_t position;
	int64_t stamp;
	uint32_t length, flags;
};

struct encoderd_taken {
	struct encoderd_header header;
	uint64_t position;
};

struct encoderd_bitrate {
	struct encoderd_header header;
	uint32_t bits_per_second, reserved;
};

#endif
