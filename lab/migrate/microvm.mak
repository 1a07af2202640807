# SPDX-License-Identifier: GPL-2.0
#
# The machines of QEMU that qemu.sh builds. The guests run on a microvm; QEMU does not
# link without a PC.
CONFIG_MICROVM=y
CONFIG_I440FX=y
