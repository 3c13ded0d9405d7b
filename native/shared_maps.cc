// SPDX-License-Identifier: MIT
#include "shared_maps.h"

#include <chrono>
#include <fstream>
#include <future>
#include <string>
#include <thread>

#include <dirent.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "map_query.h"
#include "unique_fd.h"

namespace fdmove {
namespace {

template <class F>
int for_each_number(const std::string& path, F&& use) {
  DIR* directory = opendir(path.c_str());
  if (directory == nullptr) return errno;
  while (const dirent* entry = readdir(directory))
    if (int number = atoi(entry->d_name); number > 0) use(number);
  closedir(directory);
  return 0;
}

struct SharedFiles {
  const std::vector<FileId>& files;
  std::vector<bool> mapped;
};

/** Whether the file system of this device, which has no device of its own, is an overlay, by what the process has mounted. */
bool is_overlay(const std::string& process, unsigned minor) {
  std::ifstream mounts(process + "/mountinfo");
  std::string device = " 0:" + std::to_string(minor) + " ";
  for (std::string line; std::getline(mounts, line);)
    if (line.find(device) != std::string::npos && line.find(" - overlay ") != std::string::npos) return true;
  return false;
}

void note_mapped(const std::string& process, const MapQuery& found, SharedFiles& shared) {
  for (size_t i = 0; i < shared.files.size(); i++) {
    const FileId& file = shared.files[i];
    if (shared.mapped[i] || file.inode != found.inode) continue;
    if (file.device == makedev(found.device_major, found.device_minor) ||
        (found.device_major == 0 && is_overlay(process, found.device_minor)))
      shared.mapped[i] = true;
  }
}

/** Notes what is mapped shared. Returns errno or 0; ESRCH where a thread has no memory (any more). */
int note_shared(const std::string& process, const std::string& maps, SharedFiles& shared) {
  UniqueFd fd(open(maps.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return errno;
  for (uint64_t address = 0;;) {
    MapQuery query{};
    query.size = sizeof query;
    query.flags = kMapCoveringOrNext | kMapFileBacked | kMapShared;
    query.address = address;
    if (ioctl(fd.get(), kMapQuery, &query) < 0) {
      if (errno == EINTR) continue;
      return errno == ENOENT ? 0 : errno;
    }
    note_mapped(process, query, shared);
    address = query.end;
  }
}

bool is_gone(int error) { return error == ENOENT || error == ESRCH; }
bool is_hidden(int error) { return error == EACCES || error == EPERM; }

/** All threads have one memory, but of a main thread that has ended it cannot be seen. */
int note_shared_of(int pid, SharedFiles& shared) {
  std::string process = "/proc/" + std::to_string(pid);
  int error = note_shared(process, process + "/maps", shared);
  if (!is_gone(error)) return is_hidden(error) ? 0 : error;
  for_each_number(process + "/task", [&](int tid) {
    if (tid != pid && is_gone(error))
      error = note_shared(process, process + "/task/" + std::to_string(tid) + "/maps", shared);
  });
  return is_gone(error) || is_hidden(error) ? 0 : error;
}

Result<std::vector<bool>> walk(const std::vector<FileId>& files) {
  SharedFiles shared{files, std::vector<bool>(files.size())};
  int error = 0;
  int listed = for_each_number("/proc", [&](int pid) {
    if (error == 0) error = note_shared_of(pid, shared);
  });
  if (listed != 0 || error != 0) return Failure{listed != 0 ? listed : error, "ioctl", Side::kTracer, 0, nullptr, "PROCMAP_QUERY"};
  return std::move(shared.mapped);
}

}  // namespace

Result<std::vector<bool>> mapped_shared(std::vector<FileId> files, int milliseconds) {
  std::promise<Result<std::vector<bool>>> promise;
  auto future = promise.get_future();
  std::thread([files = std::move(files), promise = std::move(promise)]() mutable { promise.set_value(walk(files)); }).detach();
  if (future.wait_for(std::chrono::milliseconds(milliseconds)) != std::future_status::ready)
    return Failure{ETIMEDOUT, "ioctl", Side::kTracer, 0, nullptr, "PROCMAP_QUERY"};
  return future.get();
}

}  // namespace fdmove
