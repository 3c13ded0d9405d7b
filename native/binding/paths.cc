// SPDX-License-Identifier: MIT
// Names and inodes below a directory fd, where Node knows only whole paths: every function takes (directory fd, name),
// and none follows a symbolic link. Names are Buffers or strings.
#include "binding/binding.h"

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "clock.h"
#include "directory_position.h"
#include "inode_search.h"
#include "metadata.h"
#include "renaming.h"
#include "safe_path.h"
#include "watches.h"

namespace fdmove::binding {

std::string to_bytes(const Napi::Value& value) {
  if (value.IsBuffer()) {
    auto buffer = value.As<Napi::Buffer<char>>();
    return std::string(buffer.Data(), buffer.Length());
  }
  return value.ToString().Utf8Value();
}

namespace {

int to_fd(const Napi::Value& value) { return static_cast<int>(to_i64(value)); }

Napi::Value done(Napi::Env env, const Status& status) {
  return status.ok() ? env.Undefined() : throw_failure(env, status.failure());
}

/** For calls that yield 0 or -1 and errno. */
Napi::Value checked(Napi::Env env, int result, const char* call, const std::string& detail = {}) {
  if (result < 0) return throw_failure(env, kernel_failure(call, 0, detail));
  return env.Undefined();
}

/** openBeneath(directory, path, flags, mode) -> fd. */
Napi::Value open_beneath(const Napi::CallbackInfo& info) {
  auto fd = fdmove::open_beneath(to_fd(info[0]), to_bytes(info[1]), to_fd(info[2]), static_cast<mode_t>(to_u64(info[3])));
  if (!fd.ok()) return throw_failure(info.Env(), fd.failure());
  return Napi::Number::New(info.Env(), fd->release());
}

Napi::Value make_directory(const Napi::CallbackInfo& info) {
  std::string name = to_bytes(info[1]);
  return checked(info.Env(), mkdirat(to_fd(info[0]), name.c_str(), static_cast<mode_t>(to_u64(info[2]))), "mkdirat", name);
}

/** makeNode(directory, name, mode with type, device). */
Napi::Value make_node(const Napi::CallbackInfo& info) {
  std::string name = to_bytes(info[1]);
  int result = mknodat(to_fd(info[0]), name.c_str(), static_cast<mode_t>(to_u64(info[2])), static_cast<dev_t>(to_u64(info[3])));
  return checked(info.Env(), result, "mknodat", name);
}

Napi::Value make_symlink(const Napi::CallbackInfo& info) {
  std::string name = to_bytes(info[1]), target = to_bytes(info[2]);
  return checked(info.Env(), symlinkat(target.c_str(), to_fd(info[0]), name.c_str()), "symlinkat", name);
}

/** readSymlink(fd) -> Buffer: where the symbolic link leads that the O_PATH fd itself is. */
Napi::Value read_symlink(const Napi::CallbackInfo& info) {
  std::string target(PATH_MAX, '\0');
  ssize_t length = readlinkat(to_fd(info[0]), "", target.data(), target.size());
  if (length < 0) return throw_failure(info.Env(), kernel_failure("readlinkat"));
  return Napi::Buffer<char>::Copy(info.Env(), target.data(), static_cast<size_t>(length));
}

/** linkFd(fd, directory, name): one more name for the inode, O_TMPFILE files included. */
Napi::Value link_fd(const Napi::CallbackInfo& info) {
  std::string name = to_bytes(info[2]);
  std::string source = "/proc/self/fd/" + std::to_string(to_fd(info[0]));
  return checked(info.Env(), linkat(AT_FDCWD, source.c_str(), to_fd(info[1]), name.c_str(), AT_SYMLINK_FOLLOW), "linkat", name);
}

/** rename(directory, name, toDirectory, toName, 'noreplace' | 'exchange'). */
Napi::Value rename_at(const Napi::CallbackInfo& info) {
  std::string from = to_bytes(info[1]), to = to_bytes(info[3]);
  DirectoryName source{to_fd(info[0]), from.c_str()}, target{to_fd(info[2]), to.c_str()};
  bool exchange = info[4].ToString().Utf8Value() == "exchange";
  return done(info.Env(), exchange ? exchange_names(source, target) : rename_to_free(source, target));
}

/** unlink(directory, name, isDirectory). */
Napi::Value unlink_at(const Napi::CallbackInfo& info) {
  std::string name = to_bytes(info[1]);
  int flags = info[2].ToBoolean() ? AT_REMOVEDIR : 0;
  return checked(info.Env(), unlinkat(to_fd(info[0]), name.c_str(), flags), "unlinkat", name);
}

Napi::Value inode_of(Napi::Env env, const struct stat& status) {
  auto inode = Napi::Object::New(env);
  inode.Set("dev", Napi::BigInt::New(env, static_cast<uint64_t>(status.st_dev)));
  inode.Set("ino", Napi::BigInt::New(env, static_cast<uint64_t>(status.st_ino)));
  inode.Set("mode", Napi::Number::New(env, status.st_mode));
  inode.Set("nlink", Napi::Number::New(env, static_cast<double>(status.st_nlink)));
  inode.Set("uid", Napi::Number::New(env, status.st_uid));
  inode.Set("gid", Napi::Number::New(env, status.st_gid));
  inode.Set("rdev", Napi::BigInt::New(env, static_cast<uint64_t>(status.st_rdev)));
  inode.Set("size", Napi::BigInt::New(env, static_cast<uint64_t>(status.st_size)));
  inode.Set("blocks", Napi::BigInt::New(env, static_cast<uint64_t>(status.st_blocks)));
  inode.Set("ctime", Napi::BigInt::New(env, nanoseconds(status.st_ctim)));
  inode.Set("mtime", Napi::BigInt::New(env, nanoseconds(status.st_mtim)));
  inode.Set("atime", Napi::BigInt::New(env, nanoseconds(status.st_atim)));
  return inode;
}

/** inodeOf(fd) -> {dev, ino, mode, nlink, uid, gid, rdev, size, blocks}. Of any fd, O_PATH included. */
Napi::Value inode_of_fd(const Napi::CallbackInfo& info) {
  struct stat status;
  if (fstat(to_fd(info[0]), &status) < 0) return throw_failure(info.Env(), kernel_failure("fstat"));
  return inode_of(info.Env(), status);
}

/**
 * directIoAlignment(fd) -> {memory, offset} in bytes, both 0 where O_DIRECT cannot be used; null where it is not told.
 * STATX_DIOALIGN of statx(2), Linux 6.1.
 */
Napi::Value direct_io_alignment(const Napi::CallbackInfo& info) {
  // struct statx of linux/stat.h, which older headers do not have in full.
  constexpr unsigned kDirectIoAlignment = 0x2000;
  constexpr size_t kOffsetOfMemory = 0x98, kOffsetOfOffset = 0x9c;
  std::array<unsigned char, 256> told{};
  long result = syscall(SYS_statx, to_fd(info[0]), "", AT_EMPTY_PATH, kDirectIoAlignment, told.data());
  if (result < 0) return throw_failure(info.Env(), kernel_failure("statx"));
  auto number = [&](size_t at) {
    uint32_t value = 0;
    memcpy(&value, told.data() + at, sizeof value);
    return value;
  };
  if ((number(0) & kDirectIoAlignment) == 0) return info.Env().Null();
  auto alignment = Napi::Object::New(info.Env());
  alignment.Set("memory", Napi::Number::New(info.Env(), number(kOffsetOfMemory)));
  alignment.Set("offset", Napi::Number::New(info.Env(), number(kOffsetOfOffset)));
  return alignment;
}

/** inodeAt(directory, name) -> the same, of the name itself; null when there is none. */
Napi::Value inode_at(const Napi::CallbackInfo& info) {
  struct stat status;
  std::string name = to_bytes(info[1]);
  if (fstatat(to_fd(info[0]), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) return inode_of(info.Env(), status);
  if (errno == ENOENT) return info.Env().Null();
  return throw_failure(info.Env(), kernel_failure("newfstatat", 0, name));
}

/**
 * spaceOf(fd) -> {type, freeBytes or null, readOnly} of its file system. Without the blocks that are reserved for root: a
 * job of another user could not write one byte more where we had filled them.
 */
Napi::Value space_of(const Napi::CallbackInfo& info) {
  struct statfs fs;
  if (fstatfs(to_fd(info[0]), &fs) < 0) return throw_failure(info.Env(), kernel_failure("fstatfs"));
  auto space = Napi::Object::New(info.Env());
  space.Set("type", Napi::Number::New(info.Env(), static_cast<double>(static_cast<uint32_t>(fs.f_type))));
  // A file system without a limit of its own (ramfs) has no blocks at all.
  if (fs.f_blocks == 0)
    space.Set("freeBytes", info.Env().Null());
  else
    space.Set("freeBytes", Napi::BigInt::New(info.Env(), uint64_t{fs.f_bavail} * static_cast<uint64_t>(fs.f_bsize)));
  space.Set("readOnly", Napi::Boolean::New(info.Env(), (fs.f_flags & ST_RDONLY) != 0));
  return space;
}

/** setDirectoryPosition(old fd, position, fresh fd) -> the new position. */
Napi::Value set_directory_position(const Napi::CallbackInfo& info) {
  auto position = fdmove::set_directory_position(to_fd(info[0]), static_cast<int64_t>(to_u64(info[1])), to_fd(info[2]));
  if (!position.ok()) return throw_failure(info.Env(), position.failure());
  return Napi::BigInt::New(info.Env(), *position);
}

/** findInode(root, likely directory, device, inode, microseconds) -> relative path, or null. */
Napi::Value find_inode(const Napi::CallbackInfo& info) {
  auto found = fdmove::find_inode(to_bytes(info[0]), to_bytes(info[1]), to_u64(info[2]), to_u64(info[3]), to_u64(info[4]));
  if (!found.ok()) return throw_failure(info.Env(), found.failure());
  if (!*found) return info.Env().Null();
  return Napi::Buffer<char>::Copy(info.Env(), (*found)->data(), (*found)->size());
}

/** findHandle(root, likely name, type, handle, microseconds) -> relative path, or null. */
Napi::Value find_handle(const Napi::CallbackInfo& info) {
  auto found = fdmove::find_handle(to_bytes(info[0]), to_bytes(info[1]), to_fd(info[2]), to_bytes(info[3]), to_u64(info[4]));
  if (!found.ok()) return throw_failure(info.Env(), found.failure());
  if (!*found) return info.Env().Null();
  return Napi::Buffer<char>::Copy(info.Env(), (*found)->data(), (*found)->size());
}

/** watchNew() -> fd, to be read without waiting: struct inotify_event. */
Napi::Value watch_new(const Napi::CallbackInfo& info) {
  int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd < 0) return throw_failure(info.Env(), kernel_failure("inotify_init1"));
  return Napi::Number::New(info.Env(), fd);
}

/** watchDirectory(watch fd, directory fd) -> watch descriptor. Any change of its names, or of what they lead to. */
Napi::Value watch_directory(const Napi::CallbackInfo& info) {
  std::string path = "/proc/self/fd/" + std::to_string(to_fd(info[1]));
  constexpr uint32_t kMask = IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR;
  int wd = inotify_add_watch(to_fd(info[0]), path.c_str(), kMask);
  if (wd < 0) return throw_failure(info.Env(), kernel_failure("inotify_add_watch"));
  return Napi::Number::New(info.Env(), wd);
}

/** addWatches(instance fd, [{wd, mask, path, inode?: {dev, ino}}]): native/watches.h. */
Napi::Value add_watches(const Napi::CallbackInfo& info) {
  auto list = info[1].As<Napi::Array>();
  std::vector<NewWatch> watches;
  watches.reserve(list.Length());
  for (uint32_t index = 0; index < list.Length(); index++) {
    auto one = list.Get(index).As<Napi::Object>();
    NewWatch watch{to_fd(one.Get("wd")), static_cast<uint32_t>(to_u64(one.Get("mask"))), to_bytes(one.Get("path")), 0, 0};
    if (one.Get("inode").IsObject()) {
      auto inode = one.Get("inode").As<Napi::Object>();
      watch.device = to_u64(inode.Get("dev"));
      watch.inode = to_u64(inode.Get("ino"));
    }
    watches.push_back(std::move(watch));
  }
  return done(info.Env(), fdmove::add_watches(to_fd(info[0]), watches));
}

Napi::Value copy_attributes(const Napi::CallbackInfo& info) {
  return done(info.Env(), fdmove::copy_attributes(to_fd(info[0]), to_fd(info[1])));
}

Napi::Value copy_times(const Napi::CallbackInfo& info) {
  return done(info.Env(), fdmove::copy_times(to_fd(info[0]), to_fd(info[1])));
}

/** hasFinalFlags(fd): sealAll() with `final` would set inode flags like those of this file. */
Napi::Value has_final_flags(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), fdmove::has_final_flags(to_fd(info[0])));
}

Napi::Value is_encrypted(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), fdmove::is_encrypted(to_fd(info[0])));
}

Napi::Value copy_creation_flags(const Napi::CallbackInfo& info) {
  fdmove::copy_creation_flags(to_fd(info[0]), to_fd(info[1]));
  return info.Env().Undefined();
}

Napi::Value copy_final_flags(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), fdmove::copy_final_flags(to_fd(info[0]), to_fd(info[1])));
}

Napi::Value clear_forbidding_flags(const Napi::CallbackInfo& info) {
  fdmove::clear_forbidding_flags(to_fd(info[0]));
  return info.Env().Undefined();
}

}  // namespace

void register_paths(Napi::Env env, Napi::Object exports) {
  exports.Set("openBeneath", Napi::Function::New(env, open_beneath, "openBeneath"));
  exports.Set("makeDirectory", Napi::Function::New(env, make_directory, "makeDirectory"));
  exports.Set("makeNode", Napi::Function::New(env, make_node, "makeNode"));
  exports.Set("makeSymlink", Napi::Function::New(env, make_symlink, "makeSymlink"));
  exports.Set("readSymlink", Napi::Function::New(env, read_symlink, "readSymlink"));
  exports.Set("linkFd", Napi::Function::New(env, link_fd, "linkFd"));
  exports.Set("renameAt", Napi::Function::New(env, rename_at, "renameAt"));
  exports.Set("unlinkAt", Napi::Function::New(env, unlink_at, "unlinkAt"));
  exports.Set("pageSize", Napi::Number::New(env, static_cast<double>(sysconf(_SC_PAGESIZE))));
  exports.Set("directIoAlignment", Napi::Function::New(env, direct_io_alignment, "directIoAlignment"));
  exports.Set("inodeOf", Napi::Function::New(env, inode_of_fd, "inodeOf"));
  exports.Set("inodeAt", Napi::Function::New(env, inode_at, "inodeAt"));
  exports.Set("spaceOf", Napi::Function::New(env, space_of, "spaceOf"));
  exports.Set("setDirectoryPosition", Napi::Function::New(env, set_directory_position, "setDirectoryPosition"));
  exports.Set("findHandle", Napi::Function::New(env, find_handle, "findHandle"));
  exports.Set("findInode", Napi::Function::New(env, find_inode, "findInode"));
  exports.Set("watchNew", Napi::Function::New(env, watch_new, "watchNew"));
  exports.Set("watchDirectory", Napi::Function::New(env, watch_directory, "watchDirectory"));
  exports.Set("addWatches", Napi::Function::New(env, add_watches, "addWatches"));
  exports.Set("copyAttributes", Napi::Function::New(env, copy_attributes, "copyAttributes"));
  exports.Set("copyTimes", Napi::Function::New(env, copy_times, "copyTimes"));
  exports.Set("hasFinalFlags", Napi::Function::New(env, has_final_flags, "hasFinalFlags"));
  exports.Set("isEncrypted", Napi::Function::New(env, is_encrypted, "isEncrypted"));
  exports.Set("copyCreationFlags", Napi::Function::New(env, copy_creation_flags, "copyCreationFlags"));
  exports.Set("copyFinalFlags", Napi::Function::New(env, copy_final_flags, "copyFinalFlags"));
  exports.Set("clearForbiddingFlags", Napi::Function::New(env, clear_forbidding_flags, "clearForbiddingFlags"));
}

}  // namespace fdmove::binding
