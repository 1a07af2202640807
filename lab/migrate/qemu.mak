# SPDX-License-Identifier: GPL-2.0
#
# The machines of QEMU that qemu.sh builds, and what their guests get: Xen's and Hyper-V's
# interfaces, the HPET, a serial port, a disk. QEMU does not link without I440FX.
CONFIG_MICROVM=y
CONFIG_I440FX=y
CONFIG_Q35=y
CONFIG_XEN_EMU=y
CONFIG_XEN_BUS=y
CONFIG_HYPERV=y
CONFIG_HPET=y
CONFIG_SERIAL_ISA=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BLK=y
