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

.PHONY: help demo check packages tree refresh series kernel before selftests programs lab each

help:
	@echo 'make demo       measure what live update and migration do to a clock, with and'
	@echo '                without the series, on kernels built and booted here'
	@echo 'make check      all tests, on all bases'
	@echo
	@echo 'For BASE=$(subst $() ,|,$(BASES)) (now $(BASE)):'
	@echo 'make tree       the kernel source with the series, as git tree $(O)/linux'
	@echo 'make refresh    write the commits of that tree back to patches/ and the new files'
	@echo 'make series     the series as mails with a cover letter, in $(O)/series;'
	@echo '                SIGNOFF=1 adds your Signed-off-by'
	@echo 'make kernel     $(O)/bzImage and $(O)/modules/*.ko from that tree'
	@echo 'make before     the same without the series, in $(O)/before'
	@echo 'make selftests  the KVM selftests for clocks, in $(O)/selftests'
	@echo 'make programs   the programs of the demo, in $(O)/programs'
	@echo 'make lab        build what changed, boot it, run SCENARIO=$(SCENARIO); the others are'
	@echo '                in lab/scenarios'
	@echo 'make each       build and test after each patch of the series'
	@echo
	@echo 'LINUX=dir-or-tarball gives the kernel source, else it is a package of Debian.'
	@echo 'ACCEL=tcg|kvm says what to boot kernels on, else hardware if it can.'

demo: kernel before programs
	@lab/demo/run.sh $(BASE)

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

lab: kernel selftests programs
	@lab/run.sh $(O) $(SCENARIO)

each: kernel selftests
	@lab/each.sh $(BASE)
