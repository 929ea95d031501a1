/*
 * A camera in C, as small as one can be: grey pictures whose brightness is
 * their number, 50 a second, in four buffers of its own.
 *
 *	cc -O2 -o /usr/lib/encoderd/devices/grey camera.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "encoderd_device.h"

#define WIDTH 64
#define HEIGHT 36
#define SIZE (WIDTH * HEIGHT * 3 / 2)
#define BUFFERS 4

static const struct encoderd_mode mode = {0x3231564e /* NV12 */, WIDTH, HEIGHT, 50, 1, 0};
static const struct encoderd_layout layout = {
	0x3231564e, WIDTH, HEIGHT, {{0, 0, WIDTH}, {0, WIDTH * HEIGHT, WIDTH}, {0, 0, 0}}, {SIZE, 0, 0}, 0};

static unsigned char *memory[BUFFERS];
static int fds[BUFFERS];
static bool ours[BUFFERS];

/* send_message sends a message whose size is known, with descriptors. */
static bool send_message(void *message, uint32_t type, uint32_t length, const int *with, int count)
{
	struct encoderd_header *header = message;
	struct iovec part = {message, length};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof fds)];
	} control = {0};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};

	header->type = type;
	header->length = length;
	if (count > 0) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(count * sizeof *with);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof *with);
		memcpy(CMSG_DATA(c), with, count * sizeof *with);
	}
	return sendmsg(ENCODERD_FD, &m, MSG_NOSIGNAL) == (ssize_t)length;
}

#define SEND(message, type) send_message(&(message), type, sizeof(message), NULL, 0)

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* make_buffers makes memory that nobody can cut short. */
static bool make_buffers(void)
{
	for (int i = 0; i < BUFFERS; i++) {
		fds[i] = memfd_create("grey", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (fds[i] < 0 || ftruncate(fds[i], SIZE) < 0 || fcntl(fds[i], F_ADD_SEALS, F_SEAL_SHRINK) < 0)
			return false;
		memory[i] = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
		if (memory[i] == MAP_FAILED)
			return false;
		ours[i] = true;
	}
	return true;
}

/* picture sends the next picture if a buffer is free. */
static bool picture(uint32_t seq)
{
	for (uint32_t i = 0; i < BUFFERS; i++) {
		struct encoderd_frame frame = {.index = i, .seq = seq, .stamp = now(), .used = {SIZE}};

		if (!ours[i])
			continue;
		memset(memory[i], seq & 0xff, WIDTH * HEIGHT);
		memset(memory[i] + WIDTH * HEIGHT, 128, SIZE - WIDTH * HEIGHT);
		ours[i] = false;
		return SEND(frame, ENCODERD_FRAME);
	}
	return true; /* the box has them all */
}

/* answer handles one message; it returns false at the end. */
static bool answer(bool *running)
{
	union {
		struct encoderd_header header;
		struct encoderd_release release;
		char bytes[ENCODERD_MAX_MESSAGE];
	} in;
	ssize_t n = recv(ENCODERD_FD, &in, sizeof in, 0);

	if (n < (ssize_t)sizeof in.header || in.header.length != n)
		return false;
	switch (in.header.type) {
	case ENCODERD_OPEN_CAMERA: {
		struct encoderd_camera_opened opened = {.mode = mode, .layout = layout};
		return SEND(opened, ENCODERD_CAMERA_OPENED);
	}
	case ENCODERD_START: {
		struct encoderd_buffers buffers = {.count = BUFFERS, .layout = layout};
		*running = make_buffers();
		return *running && send_message(&buffers, ENCODERD_BUFFERS, sizeof buffers, fds, BUFFERS);
	}
	case ENCODERD_RELEASE:
		if (in.release.index >= BUFFERS)
			return false;
		ours[in.release.index] = true;
		return true;
	default:
		return false; /* Stop, or what we do not know */
	}
}

int main(void)
{
	struct encoderd_hello_camera hello = {.version = ENCODERD_VERSION, .modes = 1, .name = "Grey in C", .mode = {mode}};
	struct encoderd_bye bye;
	struct pollfd box = {.fd = ENCODERD_FD, .events = POLLIN};
	bool running = false;
	int64_t due = 0;

	if (!SEND(hello, ENCODERD_HELLO_CAMERA)) {
		perror("this program is started by encoderd");
		return 1;
	}
	for (uint32_t seq = 0;;) {
		int64_t left = (due - now()) / 1000000;
		int ready = poll(&box, 1, !running ? -1 : left > 0 ? (int)left : 0);

		if (ready < 0 && errno != EINTR)
			return 1;
		if (ready > 0 && !answer(&running))
			break;
		if (running && now() >= due) {
			due = now() + 20000000;
			if (!picture(seq++))
				break;
		}
	}
	SEND(bye, ENCODERD_BYE);
	return 0;
}
