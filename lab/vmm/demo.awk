# SPDX-License-Identifier: GPL-2.0
#
# Print the tables of `make demo` from what lab/vmm/demo.c printed on the kernel without
# the series and on that with it:
#
#	awk -f lab/vmm/demo.awk UNPATCHED.log PATCHED.log
#
# Exit status 1, with the reason in the last line, unless KVM_SET_CLOCK_GUEST leaves 0 ns
# every time.

{ kernel = FILENAME == ARGV[1] ? "unpatched" : "with the series" }

$1 == "result" {
	trials = $4
	cell[kernel, $2, $3] = sprintf("%8s%8s", $5, $6)
}

$1 == "restore" {
	method[kernel] = $2
	drift[kernel, $3] = $4
}

kernel != "unpatched" && / KVM_SET_CLOCK_GUEST / {
	figures++
	if ($NF != 0)
		wrong = "KVM_SET_CLOCK_GUEST is off by " $NF " ns: " $0
}

END {
	print "\nError of the guest's clock against its TSC, in ns: median and worst of"
	print trials " trials each.\n"
	print "                             KVM_SET_CLOCK   clock update of a     KVM_SET_CLOCK_GUEST"
	print "                                             VM that ran for 3 s"
	print "                              median   worst    median   worst    median   worst"
	rows("unpatched")
	rows("with the series")
	print "\nError after so many live updates in a row, each into a new VM, in ns:\n"
	print "                                               1        10       100"
	drift_row("unpatched")
	drift_row("with the series")
	print ""
	if (!wrong && figures != 102)
		wrong = "102 figures of KVM_SET_CLOCK_GUEST are expected, there are " figures + 0
	if (wrong) {
		print "demo: " wrong
		exit 1
	}
}

function rows(kernel)
{
	row(kernel, "live-update")
	row(kernel, "migration")
}

function row(kernel, event)
{
	printf "%-15s %-11s  %s  %s  %s\n", kernel, event == "migration" ? event : "live update",
	       figure(kernel, event, "KVM_SET_CLOCK"), figure(kernel, event, "clock-update"),
	       figure(kernel, event, "KVM_SET_CLOCK_GUEST")
}

# Median and worst, or dashes where the kernel has no such ioctl.
function figure(kernel, event, name)
{
	return (kernel, event, name) in cell ? cell[kernel, event, name] : sprintf("%8s%8s", "-", "-")
}

function drift_row(kernel)
{
	printf "%-15s %-20s %9d %9d %9d\n", kernel, method[kernel], drift[kernel, 1],
	       drift[kernel, 10], drift[kernel, 100]
}
