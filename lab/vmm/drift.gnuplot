# SPDX-License-Identifier: GPL-2.0
#
# The plot of lab/vmm/demo.sh: errors on a logarithmic scale that has a 0.
#
#	gnuplot -c drift.gnuplot WHAT-WAS-MEASURED DATA SVG

set terminal svg size 800,480 font "sans-serif,14" background "white"
set output ARG3

set title "Error of the guest's clock (kvmclock) against its TSC\n".ARG1
set xlabel "live updates in a row, each into a new VM"
set ylabel "error in ns"
set key center right
set grid ytics

# 0 ns at 0, 9 ns at 1, 99 ns at 2, ... The line of 0 is above the axis.
set nonlinear y via log10(1 + y) inverse 10 ** y - 1
set xrange [0:*]
stats ARG2 using (abs($2)) nooutput
set yrange [-0.5:10 ** ceil(log10(1 + STATS_max))]
set ytics ("0" 0, "1" 1, "10" 10, "100" 100, "1,000" 1e3, "10,000" 1e4, \
	"100,000" 1e5, "1,000,000" 1e6, "10,000,000" 1e7)

plot ARG2 using 1:(abs($2)) with points pt 7 ps 0.5 lc rgb "#c0392b" \
		title "unpatched: KVM\\_SET\\_CLOCK", \
	ARG2 using 1:(abs($4)) with points pt 7 ps 0.5 lc rgb "#1f618d" \
		title "with the series: KVM\\_SET\\_CLOCK\\_GUEST"
