#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Boot a kernel on Bochs, which emulates an Intel CPU with VMX and TSC scaling, and
# whose time is the number of instructions: nothing depends on how busy the host is.
#
#	lab/boot/bochs.sh BZIMAGE INITRAMFS MEMORY IPS LOGDIR WORD...
#
# IPS is instructions a second, which is also the TSC's rate in Hz. The console is
# standard output, the second serial port is LOGDIR/verdict.log.
# LOGDIR also gets bochs.log, bochsrc and boot.iso. The WORDs are the kernel's
# command line, after those that the emulated machine needs: of two the last one counts.
#
# Exit status: 0 the machine powered itself off, else anything else happened.

set -euo pipefail

# What the CPU model gets wrong:
#   It claims a TSC of 3.5 GHz.
#   It claims threads (ht) of a package with one CPU, and sizes of XSAVE's areas
#   that the kernel does not find plausible: the kernel warns, and 7.3 crashes.
# A panicking kernel reboots: by a triple fault, which ends the emulation.
# shellcheck disable=SC2054 # a word has a comma
words=(clearcpuid=ht,xsave reboot=triple)

main() {
	(($# >= 5)) || die "usage: lab/boot/bochs.sh BZIMAGE INITRAMFS MEMORY IPS LOGDIR WORD..."
	kernel=$1 initramfs=$2 ips=$4 logdir=$5
	megabytes=$(numfmt --from=iec --to-unit=Mi "$3")
	shift 5
	write_iso "tsc_early_khz=$((ips / 1000))" "${words[@]}" "$@"
	write_bochsrc
	run
}

# The BIOS boots nothing but disks.
write_iso() {
	printf '%s\n' 'DEFAULT linux' 'LABEL linux' 'KERNEL /bzImage' 'INITRD /initramfs.gz' \
		"APPEND $*" >"$logdir/isolinux.cfg"
	xorriso -as mkisofs -quiet -o "$logdir/boot.iso" -graft-points \
		-b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table \
		isolinux.bin=/usr/lib/ISOLINUX/isolinux.bin \
		ldlinux.c32=/usr/lib/syslinux/modules/bios/ldlinux.c32 \
		isolinux.cfg="$logdir/isolinux.cfg" \
		bzImage="$kernel" initramfs.gz="$initramfs" >&2
}

# The display is a VNC server that waits for nobody: it needs no screen. Without the
# plugins Bochs needs no sound. A triple fault is fatal, and not a reset.
write_bochsrc() {
	cat >"$logdir/bochsrc" <<-E
		display_library: rfb, options="timeout=0"
		plugin_ctrl: speaker=0, sb16=0, es1370=0
		cpu: model=corei7_skylake_x, ips=$ips, reset_on_triple_fault=0
		clock: sync=none, time0=1000000000
		megs: $megabytes
		ata0-master: type=cdrom, path="$logdir/boot.iso", status=inserted
		boot: cdrom
		com1: enabled=1, mode=file, dev=/dev/fd/3
		com2: enabled=1, mode=file, dev="$logdir/verdict.log"
		log: "$logdir/bochs.log"
		info: action=ignore
		panic: action=fatal
	E
}

# Debian's Bochs starts in its debugger, which is told to continue. To Bochs a
# power-off is as fatal as an error: its log says which it was.
run() {
	local last

	: >"$logdir/bochs.log"
	setpriv --pdeathsig KILL bochs -f "$logdir/bochsrc" -rc <(echo c) 3>&1 >&2 || :
	last=$(tail -n 1 "$logdir/bochs.log")
	[[ $last == *'ACPI control: soft power off' ]] || die "ended without a power-off: $last"
}

die() {
	echo "bochs: $*" >&2
	exit 1
}

main "$@"
