#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs on a host of `make migrate`, driven by lab.py, which is at the other end of the
# host's serial ports: commands come by the port "shell", and the results go there.

for port in /sys/class/virtio-ports/*; do
	ln -s "/dev/${port##*/}" "/dev/$(cat "$port/name")"
done
exec sh 0<>/dev/shell 1>&0 2>&1
