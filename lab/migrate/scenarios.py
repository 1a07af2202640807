# SPDX-License-Identifier: GPL-2.0
"""What happens to the guests of `make migrate`: the rows of its table."""

import json
import shlex
import time
from typing import NamedTuple

from judge import check_exact, check_moved
from lab import FILE_PORT, LOG, Failure, Guest, Qemu, words

CMDLINE = 'console=ttyS0 quiet panic=-1 noxsave mitigations=off init_on_alloc=0 nokaslr'


class Machine(NamedTuple):
    """How a guest is started; the patched QEMU alone knows what is in globals."""
    machine: str
    accel: str = 'kvm'
    cpu: str = 'host'
    bios: str = 'bios-256k.bin'
    globals: str = ''
    init: str = 'kvm-clock'
    devices: str = ''

    def words(self, patched, policy, host):
        return [
            '-accel', self.accel, '-cpu', self.cpu.format(hz=host.khz * 1000),
            '-smp', '2,maxcpus=3' if 'q35' in self.machine else '2', '-m', '192M',
            '-object', 'memory-backend-memfd,id=ram,size=192M,share=on',
            '-M', self.machine + ',memory-backend=ram,aux-ram-share=on',
            '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
            '-bios', self.bios, '-kernel', '/files/bzImage', '-initrd', '/files/guest.gz',
            '-append', f'{CMDLINE} -- {self.init}',
            '-trace', 'kvmclock_*',
            *self.devices.split(),
            *(self.globals.split() if patched else []),
            *(['-global', f'kvmclock.guest-clock={policy}'] if policy else [])]


# Versioned machine types up to 10.0 are "off". Ours has no port of VMware's.
POLICY = '-global kvmclock.guest-clock='
MICROVM = Machine('microvm,x-option-roms=off,rtc=on,isa-serial=on', bios='qboot.rom')
Q35 = Machine('q35,vmport=off,hpet=on', globals=POLICY + 'auto')
# Its first write fails. What is written is lost, and nothing is to be read.
DISK = Q35._replace(devices='-device virtio-blk-pci,drive=disk -drive if=none,id=disk,werror=stop,'
                            'driver=blkdebug,image.driver=null-co,image.read-zeroes=on,'
                            'inject-error.0.event=none,inject-error.0.iotype=write,'
                            'inject-error.0.once=on')
# Emulated CPUs have no invariant TSC: force it. With it, the guest trusts its TSC. It cannot
# be let watch it by the ACPI PM timer: reading that takes longer here than Linux accepts.
TSC = Q35._replace(cpu='host,+invtsc,x-force-features=on,tsc-frequency={hz}', init='tsc')
# KVM takes all hypercalls of a guest that has told Hyper-V its name for Hyper-V's: a vCPU
# that waits for a spinlock is never kicked.
HYPERV = Q35._replace(cpu='host,hv-time,hv-vpindex,hv-synic,hv-stimer,'
                          'kvm-pv-unhalt=off,kvm-pv-ipi=off,kvm-pv-sched-yield=off',
                      init='kvm-clock hv')
# From 4.17 on, event channels come through the local APIC. A level-triggered callback is
# delivered a second time by emulated SVM, with interrupts disabled, and the guest crashes.
XEN = Machine('q35,vmport=off', accel='kvm,xen-version=0x40011,kernel-irqchip=split', init='xen',
              globals=POLICY + 'auto -global x86_64-cpu.x-migrate-xen-runstate=on')


class Row(NamedTuple):
    """A row of the table."""
    title: str
    machine: Machine
    play: object
    host2: bool = True      # whether host 2 has to do with it
    khz: bool = False       # whether the hosts have different rates of the TSC
    debian: bool = True     # whether Debian's QEMU can do it


ROWS = []


def row(title, machine, **more):
    def add(play):
        ROWS.append(Row(title, machine, play, **more))
        return play
    return add


# --- in one process ----------------------------------------------------------------


@row('nothing at all', MICROVM, host2=False)
def nothing(vm):
    """What the emulation itself does to timers."""
    for _ in range(3):
        vm.measure()


@row('stop, cont', MICROVM, host2=False)
def stop_and_cont(vm):
    vm.at.qmp('stop')
    vm.at.qmp('cont')


@row('stopped by a debugger, stepped', MICROVM, host2=False)
def debugger(vm):
    """It stops when the debugger connects, and again after an instruction."""
    address = vm.at.host.address
    vm.at.qmp('human-monitor-command', command_line=f'gdbserver tcp:{address}:1234')
    vm.there.sh(f'mkfifo /tmp/gdb; nc {address} 1234 </tmp/gdb >/dev/null & exec 3>/tmp/gdb')
    vm.at.event('STOP')
    vm.there.sh("printf '$s#73' >&3")
    vm.at.until('debug')
    vm.there.sh("printf '$D#44' >&3; exec 3>&-; rm /tmp/gdb")
    vm.at.until('running')


@row('dump-guest-memory', MICROVM, host2=False)
def dump(vm):
    vm.at.qmp('dump-guest-memory', paging=False, protocol='file:/tmp/dump')
    vm.at.host.sh('rm /tmp/dump')


def snapshot(vm):
    """Save a snapshot on a new disk; return what loads it."""
    vm.at.job('blockdev-create', options={'driver': 'file', 'filename': '/tmp/disk', 'size': 0})
    vm.at.qmp('blockdev-add', driver='file', filename='/tmp/disk', node_name='file')
    vm.at.job('blockdev-create', options={'driver': 'qcow2', 'file': 'file', 'size': 1 << 20})
    vm.at.qmp('blockdev-add', driver='qcow2', file='file', node_name='disk')
    vm.at.job('snapshot-save', tag='a', vmstate='disk', devices=['disk'])
    return lambda: vm.at.job('snapshot-load', tag='a', vmstate='disk', devices=['disk'])


def forget_snapshot(vm):
    vm.at.qmp('blockdev-del', node_name='disk')
    vm.at.qmp('blockdev-del', node_name='file')


@row('savevm, loadvm', MICROVM, host2=False)
def savevm(vm):
    load = snapshot(vm)
    vm.measure()
    load()
    forget_snapshot(vm)


@row('one snapshot, loaded three times', MICROVM, host2=False)
def loadvm(vm):
    load = snapshot(vm)
    for _ in range(3):
        load()
        vm.measure()
    forget_snapshot(vm)


@row('live update, cpr-transfer', MICROVM, host2=False)
def live_update(vm, *event):
    """To another QEMU on the same host."""
    main, cpr = ({'channel-type': kind,
                  'addr': {'transport': 'socket', 'type': 'unix', 'path': f'/tmp/{kind}'}}
                 for kind in ('main', 'cpr'))
    incoming = shlex.join(['-incoming', json.dumps(main), '-incoming', json.dumps(cpr)])
    qemu = Qemu(vm.at.host, f'{vm.words} {incoming}', slot=1 - vm.at.slot, wait=False)
    vm.at.host.sh('until [ -S /tmp/cpr ]; do sleep 0.1; done')
    vm.at.qmp('migrate-set-parameters', mode='cpr-transfer')
    vm.at.qmp('migrate', channels=[main, cpr])
    qemu.greet()
    vm.at.migrated()
    vm.moved_to(qemu, *event)


# --- to the other host ----------------------------------------------------------------


@row('migration, there and back', MICROVM)
def there_and_back(vm):
    for _ in range(2):
        vm.migrate()
        vm.measure()


@row('migration, ten times', MICROVM, host2=False, debian=False)
def migrations(vm):
    for _ in range(10):
        vm.migrate()
        vm.measure()


def begin(vm):
    """Begin a migration, but so slowly that it does not end."""
    qemu = vm.incoming(vm.there, f'tcp:{vm.there.address}:4001')
    vm.at.begin(f'tcp:{vm.there.address}:4001', bandwidth=100000)
    vm.at.event('MIGRATION', 'active')
    return qemu


@row('migration, cancelled', MICROVM, host2=False)
def cancelled(vm):
    qemu = begin(vm)
    vm.at.qmp('migrate_cancel')
    vm.at.migrated('cancelled')
    qemu.kill()


@row('postcopy', MICROVM)
def postcopy(vm):
    uri = f'tcp:{vm.there.address}:4001'
    qemu = vm.incoming(vm.there, uri, capabilities=['postcopy-ram'])
    vm.at.enable('postcopy-ram')
    vm.at.begin(uri, bandwidth=100000)
    vm.at.event('MIGRATION', 'active')
    vm.at.qmp('migrate-start-postcopy')
    qemu.event('RESUME')
    vm.at.migrated()
    vm.moved_to(qemu, 'MIGRATION', 'completed')
    vm.at.enable('postcopy-ram', state=False)


def through_file(vm, *capabilities):
    """Save the guest to a file, take that to the other host, and restore it there."""
    vm.at.enable(*capabilities)
    vm.at.migrate('file:/tmp/state')
    vm.there.sh(f'wget -q -O /tmp/state http://{vm.at.host.address}:{FILE_PORT}/state')
    vm.at.host.sh('rm /tmp/state')
    qemu = vm.incoming(vm.there, 'file:/tmp/state', capabilities=capabilities)
    vm.moved_to(qemu)
    vm.at.enable(*capabilities, state=False)
    vm.at.host.sh('rm /tmp/state')


@row('migration to a file', MICROVM)
def to_file(vm):
    through_file(vm)


@row('migration to a file, mapped-ram', MICROVM, host2=False)
def mapped_ram(vm):
    through_file(vm, 'mapped-ram')


@row('arrives paused, leaves again', MICROVM, host2=False)
def saved_again(vm):
    """Without having run where it came: its state is what came."""
    uri = f'tcp:{vm.there.address}:4001'
    qemu = vm.incoming(vm.there, uri, options='-S')
    vm.at.migrate(uri)
    vm.moved_to(qemu, 'MIGRATION', 'completed')
    vm.migrate('MIGRATION', 'completed')
    vm.at.qmp('cont')


@row('arrives paused, then a live update', MICROVM, host2=False)
def update_before_run(vm):
    """Its TSC's offset is of the host that it came from; TSC and clock stand still."""
    uri = f'tcp:{vm.there.address}:4001'
    qemu = vm.incoming(vm.there, uri, options='-S')
    start = time.monotonic()
    vm.measure()
    tsc = vm.last['tsc']
    vm.at.migrate(uri)
    ran = time.monotonic() - start
    vm.moved_to(qemu, 'MIGRATION', 'completed')
    live_update(vm, 'MIGRATION', 'completed')
    start = time.monotonic()
    vm.at.qmp('cont')
    vm.measure()
    ran += time.monotonic() - start
    if vm.last['tsc'] - tsc > ran * vm.at.host.khz * 1000:
        vm.wrong.append(f'the TSC counted {vm.last["tsc"] - tsc} cycles, the guest ran for {ran} s')


@row('the network is cut, QEMU is killed', MICROVM, host2=False)
def failures(vm):
    """The guest stays where it is."""
    qemu = begin(vm)
    vm.there.sh('ifconfig eth0 down')
    vm.at.qmp('migrate_cancel')
    vm.at.migrated('cancelled')
    vm.there.sh('ifconfig eth0 up')
    qemu.kill()
    qemu = begin(vm)
    qemu.kill()
    vm.at.migrated('failed')


@row('system_reset while stopped, migration', MICROVM, host2=False)
def reset(vm):
    """TSC and clock begin anew, as at power-on."""
    kept = vm.last['tsc'] + vm.first['tsc'] // 2
    vm.at.qmp('set-action', reboot='reset')
    for command in 'stop', 'system_reset', 'cont':
        vm.at.qmp(command)
    vm.boot()
    if vm.last['tsc'] >= kept:
        vm.wrong.append('the TSC goes on as if there had been no reset')
    vm.at.qmp('set-action', reboot='shutdown')
    vm.migrate()


# --- q35 and what people have there -----------------------------------------------------


@row('q35 with HPET, migration', Q35)
def q35(vm):
    there_and_back(vm)


def plug(vm):
    slot = next(s for s in vm.at.qmp('query-hotpluggable-cpus') if 'qom-path' not in s)
    vm.at.qmp('device_add', driver=slot['type'], id='plugged', **slot['props'])
    vm.tell('write /sys/devices/system/cpu/cpu2/online 1')
    vm.measure()


@row('two kHz, migration', Q35, khz=True)
def other_khz(vm):
    there_and_back(vm)


@row('two kHz, then a vCPU plugged in', Q35, khz=True)
def hot_plug(vm):
    vm.migrate()
    plug(vm)


@row('a vCPU unplugged, then loadvm', Q35, host2=False)
def parked(vm):
    """QEMU keeps an unplugged vCPU, and KVM compares its TSC with the others'."""
    plug(vm)
    vm.at.qmp('device_del', id='plugged')
    vm.at.event('DEVICE_DELETED')
    load = snapshot(vm)
    load()
    forget_snapshot(vm)


@row('stopped by an error of a disk', DISK, host2=False)
def io_error(vm):
    vm.tell('load /virtio_blk.ko')
    vm.tell('write /dev/vda x')
    vm.at.until('io-error')
    vm.at.qmp('cont')


@row('clocksource tsc, stop, cont', TSC, host2=False)
def tsc_stop(vm):
    stop_and_cont(vm)


@row('clocksource tsc, migration', TSC)
def tsc_migration(vm):
    there_and_back(vm)


@row("Hyper-V's page and timer, migration", HYPERV)
def hyperv(vm):
    there_and_back(vm)


@row('Xen, ten migrations', XEN, host2=False, debian=False)
def xen(vm):
    migrations(vm)


# --- what else can happen: the clock moves, and QEMU says so ---------------------------------


def move(vm, to=None):
    """Migrate it, maybe to a QEMU with another command line, and measure."""
    vm.words = to or vm.words
    vm.migrate()
    vm.measure()


def check_said(vm):
    """By how much can't be checked: the clock is no function of the TSC any more."""
    if not vm.at.moved:
        raise Failure('the clock moved, and QEMU said nothing')


def young_destination(pair):
    """the destination is as old as the guest: exact"""
    uri = f'tcp:{pair[1].address}:4001'
    qemu = Qemu(pair[1], words('patched', MICROVM, None, pair[0]) + ' -incoming defer')
    vm = Guest(pair, 'patched', MICROVM)
    qemu.qmp('migrate-incoming', uri=uri)
    vm.at.migrate(uri)
    vm.moved_to(qemu)
    vm.measure()
    check_exact(vm)
    return vm


def clocksource_not_tsc(pair):
    """host 1's clocksource is not the TSC: the clock moves, and QEMU says so"""
    vm = Guest(pair, 'patched', MICROVM)
    pair[0].use_clocksource('slow')
    move(vm)
    move(vm)
    pair[0].use_clocksource('tsc')
    check_said(vm)
    return vm


def unpatched_source(pair):
    """Debian's QEMU sends no function: the clock moves, and QEMU says so"""
    vm = Guest(pair, 'debian', MICROVM)
    move(vm, to=words('patched', MICROVM, None, pair[0]))
    check_moved(vm)
    return vm


def off(pair):
    """with the policy off, to Debian's QEMU and back: the guest arrives"""
    vm = Guest(pair, 'patched', MICROVM, policy='off')
    back = vm.words
    move(vm, to=words('debian', MICROVM, None, pair[0]))
    move(vm, to=back)
    return vm


def damaged(pair):
    """a wrong bit in a field of the saved function, or the end of the file there: refused"""
    host, name = pair[0], 'kvmclock/guest_clock'
    command = words('patched', MICROVM, None, host)
    qemu = Qemu(host, command + ' -S')      # no guest runs: its memory is empty
    qemu.migrate('file:/tmp/state')
    qemu.quit()
    # After the name come four bytes of a version, and the fields.
    fields = int(host.sh(f'strings -t d /tmp/state | grep {name}').split()[0]) + len(name) + 4
    refused(host, command, f'truncate -s {fields + 7} /tmp/damaged')
    for at in (fields + offset for offset in (7, 15, 23, 27, 28, 29)):
        byte = int(host.sh(f'tail -c +{at + 1} /tmp/state | head -c 1 | hexdump -e \'"%u"\''))
        refused(host, command, f'printf "\\{byte ^ 16:03o}" |'
                f' dd of=/tmp/damaged bs=1 seek={at} conv=notrunc 2>/dev/null')
        host.sh(f'grep -q "the saved function of the TSC is damaged" {LOG}; : >{LOG}')


def refused(host, command, damage):
    """QEMU ends, and does not run the guest."""
    host.sh(f'cp /tmp/state /tmp/damaged; {damage}')
    qemu = Qemu(host, command + ' -incoming defer')
    qemu.qmp('migrate-incoming', uri='file:/tmp/damaged')
    if qemu.event('ENDED') != 1:
        raise Failure('QEMU took a damaged state')


def beyond(pair):
    """the TSCs' rates differ by more than 250 ppm: the clock moves, and QEMU says so"""
    vm = Guest(pair, 'patched', MICROVM)
    move(vm)
    check_said(vm)
    return vm


FAULTS = (young_destination, clocksource_not_tsc, unpatched_source, off, damaged)
KHZ_FAULTS = (beyond,)      # between hosts whose rates differ by 300 ppm
