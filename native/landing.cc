// SPDX-License-Identifier: MIT
#include "landing.h"

#include <array>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <string>
#include <sys/auxv.h>
#include <unistd.h>

#include "shelter.h"

// arch/batch.S: code to be copied, never run in this process.
extern "C" {
extern const uint8_t fdmove_batch_landing[];
extern const uint8_t fdmove_batch_landing_clone[];
extern const uint8_t fdmove_batch_landing_home[];
extern const uint8_t fdmove_batch_landing_end[];
}

namespace fdmove {

namespace {

using Bytes = std::array<uint8_t, FDMOVE_LANDING_SIZE>;
constexpr size_t kAlignment = 16;

/** The vDSO of this process: all 64-bit processes of a kernel have the same image, each at an address of its own. */
struct Image {
  Elf64_Ehdr header{};
  size_t end = 0;   ///< of what the linker has written: its last part is the section headers
  size_t room = 0;  ///< from there to the end of the page

  static Image own() {
    Image image;
    const auto* begin = reinterpret_cast<const char*>(getauxval(AT_SYSINFO_EHDR));
    if (begin == nullptr) return image;
    memcpy(&image.header, begin, sizeof image.header);
    const Elf64_Ehdr& header = image.header;
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_shoff < sizeof header) return image;
    size_t end = header.e_shoff + size_t{header.e_shentsize} * header.e_shnum;
    end = (end + kAlignment - 1) / kAlignment * kAlignment;
    image.room = (end + page - 1) / page * page - end;
    for (size_t at = end; at < end + image.room; at++)
      if (begin[at] != 0) image.room = 0;
    image.end = end;
    return image;
  }
};

/** Free, or left behind by a tracer that died. */
bool is_free(const Bytes& found) {
  if (found == Bytes{}) return true;
  pid_t owner = 0;
  memcpy(&owner, found.data() + FDMOVE_LANDING_OWNER, sizeof owner);
  const size_t code = static_cast<size_t>(fdmove_batch_landing_end - fdmove_batch_landing);
  return owner != getpid() && memcmp(found.data(), fdmove_batch_landing, code) == 0;
}

}  // namespace

std::optional<Landing> Landing::build(pid_t tid) {
  if (!arch::kHasGuests) return std::nullopt;
  static const Image own = Image::own();
  const RemoteAddress vdso = own.room < FDMOVE_LANDING_SIZE ? 0 : vdso_address(tid);
  Elf64_Ehdr header{};
  if (vdso == 0 || !read_remote(tid, vdso, &header, sizeof header).ok() || memcmp(&header, &own.header, sizeof header) != 0)
    return std::nullopt;
  UniqueFd memory(open(("/proc/" + std::to_string(tid) + "/mem").c_str(), O_RDWR | O_CLOEXEC));
  if (!memory.valid()) return std::nullopt;
  // Several threads of a process may make calls at the same time.
  for (size_t offset = 0; offset + FDMOVE_LANDING_SIZE <= own.room; offset += FDMOVE_LANDING_SIZE) {
    const RemoteAddress at = vdso + own.end + offset;
    Bytes bytes{};
    if (!read_remote(tid, at, bytes.data(), bytes.size()).ok()) return std::nullopt;
    if (!is_free(bytes)) continue;
    bytes = {};
    memcpy(bytes.data(), fdmove_batch_landing, static_cast<size_t>(fdmove_batch_landing_end - fdmove_batch_landing));
    const pid_t owner = getpid();
    memcpy(bytes.data() + FDMOVE_LANDING_OWNER, &owner, sizeof owner);
    if (pwrite(memory.get(), bytes.data(), bytes.size(), static_cast<off_t>(at)) != static_cast<ssize_t>(bytes.size())) return std::nullopt;
    return Landing(std::move(memory), at);
  }
  return std::nullopt;
}

void Landing::remove() {
  const Bytes nothing{};
  (void)write(0, nothing.data(), nothing.size());
}

RemoteAddress Landing::clone() const { return at_ + static_cast<size_t>(fdmove_batch_landing_clone - fdmove_batch_landing); }

Result<Landing::Way> Landing::lead_home(const arch::Home& home) {
  const RemoteAddress at = at_ + FDMOVE_LANDING_HOME;
  const arch::Home placed = place_home(home, at, 0);
  FDMOVE_TRY(write(FDMOVE_LANDING_HOME, placed.data(), sizeof placed));
  const Way way{at_ + static_cast<size_t>(fdmove_batch_landing_home - fdmove_batch_landing), at};
  FDMOVE_TRY(lead(way));
  return way;
}

Status Landing::lead(const Way& way) {
  static_assert(sizeof way == 2 * sizeof(uint64_t) && FDMOVE_LANDING_CONTROL == FDMOVE_LANDING_CODE + sizeof(uint64_t));
  return write(FDMOVE_LANDING_CODE, &way, sizeof way);
}

Status Landing::write(size_t offset, const void* bytes, size_t size) const {
  const ssize_t put = pwrite(memory_.get(), bytes, size, static_cast<off_t>(at_ + offset));
  if (put == static_cast<ssize_t>(size)) return Done{};
  return put == -1 ? Status{kernel_failure("pwrite", 0, "/proc/PID/mem")} : Status{Failure{EFAULT, "pwrite", Side::kTracer, 0}};
}

}  // namespace fdmove
