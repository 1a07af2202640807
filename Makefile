# SPDX-License-Identifier: GPL-2.0
#
# Entry points, see `make help`. Each target builds what it needs, and skips what is up to
# date.

BASE ?= 7.3
BASES := 7.3 6.12
T ?=

ifeq ($(filter $(BASE),$(BASES)),)
$(error BASE=$(BASE) is not known: use one of $(BASES))
endif

.PHONY: help demo check smoke list bench migrate shell packages tree refresh mails modules before \
	programs kernel debug kunit bisect try dkms kselftest

help:
	@echo 'make demo       measure what live update and migration do to a clock, with and'
	@echo '                without the series; the plot is out/demo/drift.svg'
	@echo 'make check      all checks but those "On request"; T=NAME one of them, on BASE'
	@echo 'make smoke      what to run before a commit'
	@echo 'make list       the checks, and the scenarios that lab/run can boot'
	@echo 'make migrate    migrate a guest between two emulated hosts, with and without the'
	@echo '                patches for QEMU, and with what can go wrong'
	@echo 'make try        test the series on this machine, with its running kernel, and put the'
	@echo '                distribution'"'"'s modules back; RELEASE=uname-r builds for another one'
	@echo
	@echo 'For BASE=$(subst $() ,|,$(BASES)) (now $(BASE)):'
	@echo 'make modules    Debian'"'"'s kernel with KVM'"'"'s modules of the series, and as distributed'
	@echo 'make shell      boot that to a shell; GDB=1 waits for a debugger on port 1234'
	@echo 'make bench      count the instructions of the ioctls and of KVM_RUN'
	@echo 'make tree       the source with the series, as git tree out/$(BASE)/tree'
	@echo 'make refresh    write the commits of that tree back to patches/ and the new files'
	@echo 'make mails      the series as mails with a cover letter, in out/$(BASE)/mails;'
	@echo '                SIGNOFF=1 adds your Signed-off-by'
	@echo 'make bisect     build KVM'"'"'s modules after each patch'
	@echo 'make before     the modules without the series, built here, for bench'
	@echo 'make programs   selftests, kvm-clock, demo, bench, tests, in out/$(BASE)/bin'
	@echo 'make kernel     a kernel from the source, for debugging, in out/$(BASE)/debug'
	@echo 'make debug      the same with KASAN, UBSAN and lockdep in out/$(BASE)/kasan, and with'
	@echo '                KCSAN in out/$(BASE)/kcsan'
	@echo 'make dkms       a Debian package that builds KVM'"'"'s modules with the series by DKMS'
	@echo 'make kselftest  the tests as a tarball of kselftest, for a kernel CI'
	@echo 'make kunit      the KUnit tests of the series, by the kernel'"'"'s kunit.py'
	@echo
	@echo 'LINUX=dir-or-tarball gives a kernel source for tree, kernel and kunit, QEMU= that of'
	@echo 'QEMU; else they are packages of Debian. ACCEL=kvm|tcg|bochs says what to boot on, else'
	@echo 'the first of these that can.'

demo: packages
	@lab/vmm/demo.sh $(BASE)

check: packages
	@lab/check $(if $(T),-c "$(T)" $(BASE),$(BASES))

smoke: packages
	@lab/check -c "shellcheck mails pvclock" $(BASE)

list:
	@echo 'checks:'
	@grep -HE '^# (Once|Each base|On request, each base): ' lab/checks/* | sed 's,^lab/checks/\([^:]*\):# ,\1 ,' | \
		while read -r name text; do printf '  %-22s %s\n' "$$name" "$$text"; done
	@echo 'scenarios:'
	@sed -n 's/^\[\(.*\)\]$$/  \1/p' lab/boot/scenarios

bench: packages
	@lab/build $(BASE) modules before programs
	@lab/vmm/bench.sh $(BASE)

migrate: packages
	@lab/build $(BASE) modules programs qemu
	@lab/migrate/build.sh $(BASE)
	@lab/migrate/run.py $(BASE)

try: packages
	@RELEASE="$(RELEASE)" LINUX="$(LINUX)" host/try.sh

dkms: packages
	@scripts/packages.sh dkms
	@lab/build $(BASE) tree
	@host/dkms.sh $(BASE)

kselftest: packages
	@lab/build $(BASE) programs
	@host/kselftest.sh $(BASE)

shell: packages
	@lab/build $(BASE) modules programs
	@lab/run -b $(BASE) shell

packages:
	@scripts/packages.sh

tree modules before programs kernel debug: packages
	@lab/build $(BASE) $@

refresh mails: packages
	@scripts/series.sh $@ $(BASE)

kunit: packages
	@lab/build $(BASE) tree
	@lab/boot/kunit.sh $(BASE)

bisect: packages
	@lab/check -c bisect $(BASE)
