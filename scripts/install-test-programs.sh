#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the Debian packages that the live tests use: file systems to mount, real programs to move, gdb to compare with.
# Does nothing when they are all there. Elsewhere than as root on Debian it says what is missing and goes on: the tests
# that need it are skipped then, which .ci/run does not allow.
set -eu

# program:package, looked for in PATH and in the directories of administrators
programs='
  bwrap:bubblewrap cmake:cmake fuser:psmisc g++:g++ gdb:gdb lsof:lsof make:make mkfs.btrfs:btrfs-progs mkfs.ext4:e2fsprogs
  mariadbd:mariadb-server mkfs.xfs:xfsprogs nginx:nginx-light ninja:ninja-build python3:python3 redis-server:redis-server setfacl:acl setfattr:attr sqlite3:sqlite3
  ss:iproute2 strace:strace
'
PATH=$PATH:/usr/sbin:/sbin
missing=
for entry in $programs; do
  command -v "${entry%%:*}" >/dev/null 2>&1 || missing="$missing ${entry#*:}"
done
# A server and a compiler, where a client or a run-time alone would answer to the name.
[ -n "$(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null)" ] || missing="$missing postgresql"
command -v javac >/dev/null 2>&1 || missing="$missing default-jdk-headless"
# For tests that may be skipped: one is large, the other takes FUSE.
browser=
command -v chromium >/dev/null 2>&1 || browser=chromium
exfat=
{ command -v mkfs.exfat && command -v mount.exfat-fuse; } >/dev/null 2>&1 || exfat='exfat-fuse exfatprogs'
[ -n "$missing$browser$exfat" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "not installed, as this is not root on Debian:$missing $browser $exfat" >&2
  exit 0
fi

# The packages must not start their servers on this machine; the tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
fi
echo "installing$missing $browser $exfat"
apt-get -qq update
install() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}
# shellcheck disable=SC2086 # a list of names
[ -z "$missing" ] || install $missing
for some in "$browser" "$exfat"; do
  # shellcheck disable=SC2086 # a list of names
  [ -z "$some" ] || install $some || echo "$some could not be installed" >&2
done
