# SPDX-License-Identifier: GPL-2.0
#
# The targets of this project. Each one says what it does in `make help`, needs
# no other one first, and repeats nothing that is done.

BASE ?= 6.12
SCENARIO ?= pvclock
O := out/$(BASE)

BASES := $(notdir $(patsubst %/base,%,$(wildcard patches/*/base)))
ifeq ($(filter $(BASE),$(BASES)),)
$(error BASE=$(BASE) is not known: use one of $(BASES))
endif

.PHONY: help demo bench check packages tree refresh series kernel before selftests programs \
	arithmetic lab each qemu migrate

help:
	@echo 'make demo       measure what live update and migration do to a clock, with and'
	@echo '                without the series, on kernels built and booted here; the plot'
	@echo '                is out/demo/drift.svg'
	@echo 'make check      all tests, on all bases'
	@echo 'make qemu       QEMU without and with the patches in integrations/qemu, in out/qemu;'
	@echo '                QEMU=dir-or-tarball gives its source'
	@echo
	@echo 'For BASE=$(subst $() ,|,$(BASES)) (now $(BASE)):'
	@echo 'make tree       the kernel source with the series, as git tree $(O)/linux'
	@echo 'make refresh    write the commits of that tree back to patches/ and the new files'
	@echo 'make series     the series as mails with a cover letter, in $(O)/series;'
	@echo '                SIGNOFF=1 adds your Signed-off-by'
	@echo 'make kernel     $(O)/bzImage and $(O)/modules/*.ko from that tree'
	@echo 'make before     the same without the series, in $(O)/before'
	@echo 'make selftests  the KVM selftests for clocks, in $(O)/selftests'
	@echo 'make programs   the programs of demo and bench, in $(O)/programs'
	@echo 'make arithmetic check guest_clock.h against exact integers, fuzz it for a minute, and'
	@echo '                break it to test the checks; SEED=number repeats the random cases'
	@echo 'make lab        build what changed, boot it, run SCENARIO=$(SCENARIO); the others are'
	@echo '                in lab/scenarios'
	@echo 'make bench      count the instructions that the ioctls take, and that KVM_RUN takes'
	@echo '                with and without the series'
	@echo 'make migrate    migrate a guest between two emulated hosts, with and without these'
	@echo '                patches, and with what can go wrong'
	@echo 'make each       build and test after each patch of the series'
	@echo
	@echo 'LINUX=dir-or-tarball gives the kernel source, else it is a package of Debian.'
	@echo 'ACCEL=kvm|tcg|bochs says what to boot kernels on, else the first of these that can.'

demo: kernel before programs
	@lab/demo/run.sh $(BASE)

bench: kernel before programs
	@lab/bench/run.sh $(BASE)

check:
	@lab/check.sh $(BASES)

packages:
	@assembler/packages.sh

tree: packages
	@assembler/source.sh $(BASE)
	@assembler/assemble.sh tree $(BASE)

refresh: packages
	@assembler/assemble.sh refresh $(BASE)

series: tree
	@assembler/assemble.sh series $(BASE)

kernel: tree
	@lab/build.sh $(O)/linux $(O) $(BASE)

before: tree
	@assembler/before.sh $(BASE)
	@lab/build.sh $(O)/before/linux $(O)/before $(BASE)

selftests: tree
	@lab/selftests.sh $(O)/linux $(O)

programs: tree
	@lab/demo/build.sh $(BASE)

arithmetic: tree
	@lab/arithmetic/property.sh $(BASE)
	@lab/arithmetic/fuzz.sh $(BASE)
	@lab/arithmetic/mutate.sh $(BASE)

lab: kernel selftests programs
	@lab/run.sh $(O) $(SCENARIO)

each: kernel selftests
	@lab/each.sh $(BASE)

qemu: packages
	@integrations/qemu/build.sh

migrate: kernel before qemu
	@lab/migrate/build.sh $(BASE)
	@lab/migrate/run.sh $(BASE)
