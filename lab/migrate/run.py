#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Let guests move between two emulated hosts, and print by how much their clocks moved.

    lab/migrate/run.py BASE         all that scenarios.py has, and a table
    lab/migrate/run.py BASE TEXT    what has TEXT in its title
    lab/migrate/run.py BASE short   there and back with the patches

What was said at all serial ports is in out/BASE/migrate/log/PAIR/transcript, and the logs
of the hosts are in 1 and 2 beside it.
"""

import os
import sys
import time

from judge import check_exact, judge
from lab import Failure, Guest, hosts
from scenarios import FAULTS, KHZ_FAULTS, MICROVM, ROWS, there_and_back

# Title: which QEMU.
COLUMNS = {'QEMU': 'debian', 'patched': 'patched', 'no series on host 2': 'patched'}


def play(vm, row):
    """Let that happen to the guest; return the figures of the row."""
    vm.begin()
    row.play(vm)
    vm.measure()
    return judge(vm)


def fill(results, title, pair, rows):
    """Play these rows with one guest for each kind of machine."""
    guest = None
    for row in rows:
        start = time.monotonic()
        if guest and guest.machine != row.machine:
            guest = guest.end()
        if not guest:
            guest = Guest(pair, COLUMNS[title], row.machine)
        figures = results[title, row.title] = play(guest, row)
        took = time.monotonic() - start
        wrong = figures['wrong'] + (figures['inexact'] if title == 'patched' else [])
        print(f'migrate: {title}: {row.title}: {figures["clock"]} ns, {took:.0f} s', *wrong[:1],
              sep='\nmigrate: ', flush=True)
        if wrong and title == 'patched':
            raise Failure(f'{title}: {row.title}: {wrong[0]}')
        if wrong:
            guest = guest.end()
    if guest:
        guest.end()


def play_faults(pair, faults):
    for fault in faults:
        start = time.monotonic()
        vm = fault(pair)
        if vm:
            vm.end()
        print(f'migrate: {fault.__doc__}, {time.monotonic() - start:.0f} s', flush=True)


def show(results):
    """The table: the clock for all columns, then all figures of each column."""
    print('\nBy how many ns the clock moved against the TSC, by the guest\'s own measurement:\n')
    print(f'{"":40}' + ''.join(f'{title:>20}' for title in COLUMNS))
    rows = [row for row in ROWS if any((title, row.title) in results for title in COLUMNS)]
    for row in rows:
        cells = [results.get((title, row.title), {'clock': '-'})['clock'] for title in COLUMNS]
        print(f'{row.title:40}' + ''.join(f'{cell:>20}' for cell in cells))
    widths = {'clock': 14, 'step': 12, 'early': 8, 'late': 7, 'bit': 6, 'page': 6, 'log': 5}
    for title in COLUMNS:
        print(f'\n{title + ":":38}' + ''.join(f'{name:>{width}}' for name, width in widths.items()))
        for row in rows:
            if figures := results.get((title, row.title)):
                cells = (f'{figures[name]:>{width}}' for name, width in widths.items())
                print(f'{row.title:38}' + ''.join(cells))
    print("""
clock: as above; step: between two readings, ns; early, late: timers, ns and ms;
bit: PVCLOCK_TSC_STABLE_BIT; page: Hyper-V's; log: complaints of the guest's kernel
""")


def whole(base, logs, text):
    results = {}
    same, khz = ([row for row in ROWS if text in row.title and row.khz == khz] for khz in (False, True))
    debian, host2 = [row for row in same if row.debian], [row for row in same if row.host2]
    faults, khz_faults = ([f for f in some if text in f.__doc__] for some in (FAULTS, KHZ_FAULTS))
    if same or faults:
        with hosts(base, f'{logs}/same') as pair:
            fill(results, 'patched', pair, same)
            fill(results, 'QEMU', pair, debian)
            play_faults(pair, faults)
    if host2:
        with hosts(base, f'{logs}/stock', kernel2='stock') as pair:
            fill(results, 'no series on host 2', pair, host2)
    if khz:
        with hosts(base, f'{logs}/khz', ppm=100) as pair:
            fill(results, 'patched', pair, khz)
            fill(results, 'QEMU', pair, khz)
    if khz_faults:
        with hosts(base, f'{logs}/beyond', ppm=300) as pair:
            play_faults(pair, khz_faults)
    show(results)


def short(base, logs):
    with hosts(base, f'{logs}/short') as pair:
        vm = Guest(pair, 'patched', MICROVM)
        there_and_back(vm)
        check_exact(vm)
        vm.end()
    print('migrate: the clock is the same function of the TSC after two trips')


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit('usage: lab/migrate/run.py BASE [TEXT | short]')
    base, text = sys.argv[1], ''.join(sys.argv[2:])
    os.chdir(f'{os.path.dirname(os.path.abspath(__file__))}/../..')
    logs = os.path.abspath(f'out/{base}/migrate/log')
    try:
        if text == 'short':
            short(base, logs)
        else:
            whole(base, logs, text)
    except Failure as failure:
        print(f'migrate: FAIL: {failure}\nmigrate: logs are in {logs}')
        sys.exit(1)


main()
