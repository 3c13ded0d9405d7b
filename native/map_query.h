// SPDX-License-Identifier: MIT
/** PROCMAP_QUERY: one mapping of a process at a time, by ioctl(2) on its maps. Since Linux 6.11; ENOTTY before. */
#pragma once

#include <cstdint>

#include <linux/ioctl.h>

namespace fdmove {

/** struct procmap_query of include/uapi/linux/fs.h, which is too new for the headers here. */
struct MapQuery {
  uint64_t size;
  uint64_t flags;
  uint64_t address;
  uint64_t start;
  uint64_t end;
  uint64_t protection;
  uint64_t page_size;
  uint64_t offset;
  uint64_t inode;
  uint32_t device_major;
  uint32_t device_minor;
  uint32_t name_size;
  uint32_t build_id_size;
  uint64_t name_address;
  uint64_t build_id_address;
};
static_assert(sizeof(MapQuery) == 104);
constexpr unsigned long kMapQuery = _IOWR('f', 17, MapQuery);
constexpr uint64_t kMapReadable = 1, kMapWritable = 2, kMapExecutable = 4, kMapShared = 8, kMapCoveringOrNext = 16, kMapFileBacked = 32;

}  // namespace fdmove
