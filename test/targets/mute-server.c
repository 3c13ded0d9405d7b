// SPDX-License-Identifier: MIT
/*
 * mute-server DIR: a FUSE file system with one file, "file", that answers at once, until it is told to fall silent:
 * from then on whoever asks it waits for ever, as with a server that died. It answers `mute` with `ok`.
 */
#include "target.h"

#include <linux/fuse.h>
#include <sys/mount.h>

enum { kRoot = 1, kFile = 2 };

static int device;
static atomic_bool mute;

static void reply(const struct fuse_in_header *request, int error, const void *body, size_t size) {
  static char message[64 * 1024];
  struct fuse_out_header header = {.len = (uint32_t)(sizeof header + size), .error = error, .unique = request->unique};
  memcpy(message, &header, sizeof header);
  if (size > 0) memcpy(message + sizeof header, body, size);
  ssize_t written = write(device, message, header.len);
  CHECK(written == (ssize_t)header.len || errno == ENOENT); /* ENOENT: the one who asked was interrupted */
}

static struct fuse_attr attributes(uint64_t node) {
  return (struct fuse_attr){.ino = node, .mode = node == kRoot ? S_IFDIR | 0755 : S_IFREG | 0644, .nlink = 1, .size = node == kFile};
}

static void answer_request(const struct fuse_in_header *request) {
  const void *body = request + 1;
  switch (request->opcode) {
    case FUSE_INIT: {
      const struct fuse_init_in *in = body;
      struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096, .max_readahead = in->max_readahead};
      reply(request, 0, &out, sizeof out);
      return;
    }
    case FUSE_LOOKUP: {
      struct fuse_entry_out out = {.nodeid = kFile, .attr = attributes(kFile)}; /* valid for no time: asked again and again */
      if (strcmp(body, "file") != 0) reply(request, -ENOENT, NULL, 0);
      else reply(request, 0, &out, sizeof out);
      return;
    }
    case FUSE_GETATTR: {
      struct fuse_attr_out out = {.attr = attributes(request->nodeid)};
      reply(request, 0, &out, sizeof out);
      return;
    }
    case FUSE_OPEN:
    case FUSE_OPENDIR: {
      struct fuse_open_out out = {0};
      reply(request, 0, &out, sizeof out);
      return;
    }
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
      return;
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_FLUSH:
      reply(request, 0, NULL, 0);
      return;
    default:
      reply(request, -ENOSYS, NULL, 0);
  }
}

static void *serve_requests(void *unused) {
  (void)unused;
  static char request[256 * 1024];
  while (read(device, request, sizeof request) > 0) {
    if (!mute) answer_request((const struct fuse_in_header *)request);
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (device < 0) fail("open /dev/fuse");
  char options[128];
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
  if (mount("mute", argv[1], "fuse", MS_NOSUID | MS_NODEV, options) != 0) fail("mount on %s", argv[1]);
  start_thread(serve_requests, NULL);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    CHECK(strcmp(line, "mute") == 0);
    mute = true;
    answer("ok");
  }
  return 0;
}
