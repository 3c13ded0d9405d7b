// SPDX-License-Identifier: MIT
/* encrypt MOUNT DIRECTORY: gives an empty directory a policy of fscrypt, by a key that is no secret. */
#include "target.h"

#include <linux/fscrypt.h>
#include <sys/ioctl.h>

int main(int argc, char **argv) {
  CHECK(argc == 3);
  int mount = open(decode(argv[1]), O_RDONLY | O_DIRECTORY), directory = open(decode(argv[2]), O_RDONLY | O_DIRECTORY);
  CHECK(mount >= 0 && directory >= 0);
  struct {
    struct fscrypt_add_key_arg about;
    uint8_t key[FSCRYPT_MAX_KEY_SIZE];
  } added = {.about = {.key_spec.type = FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER, .raw_size = FSCRYPT_MAX_KEY_SIZE}};
  for (size_t at = 0; at < sizeof added.key; at++) added.key[at] = (uint8_t)at;
  CHECK(ioctl(mount, FS_IOC_ADD_ENCRYPTION_KEY, &added) == 0);
  struct fscrypt_policy_v2 policy = {
      .version = FSCRYPT_POLICY_V2,
      .contents_encryption_mode = FSCRYPT_MODE_AES_256_XTS,
      .filenames_encryption_mode = FSCRYPT_MODE_AES_256_CTS,
      .flags = FSCRYPT_POLICY_FLAGS_PAD_16,
  };
  memcpy(policy.master_key_identifier, added.about.key_spec.u.identifier, sizeof policy.master_key_identifier);
  CHECK(ioctl(directory, FS_IOC_SET_ENCRYPTION_POLICY, &policy) == 0);
  return 0;
}
