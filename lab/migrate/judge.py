# SPDX-License-Identifier: GPL-2.0
"""What a guest measured, and what is wrong with it."""

import re

from lab import Failure

SAVED = re.compile(r'kvmclock_save .* function (\d+) (\d+) (\d+) (-?\d+)')
STABLE = 1  # PVCLOCK_TSC_STABLE_BIT


def clock(function, tsc):
    """The clock at a TSC value, as the guest computes it, or would have before the reference."""
    reference, ns, multiplier, shift = function[:4]
    cycles = (tsc - reference + (1 << 63)) % (1 << 64) - (1 << 63)
    cycles = cycles << shift if shift >= 0 else cycles >> -shift
    return ns + (cycles * multiplier >> 32)


def difference(a, b, tsc):
    """By how much two functions differ, at this value of the TSC and at later ones."""
    return [clock(b, tsc + more) - clock(a, tsc + more)
            for more in (0, 1, 12345, 1 << 32, (1 << 45) + 1)]


def judge(vm):
    """What the guest measured, what is wrong in any case, and why it is not exact if it isn't."""
    measured = vm.measured
    moved = [difference(a['functions'][0], b['functions'][0], b['tsc'])[0]
             for a, b in zip([vm.before] + measured, measured)]
    stable = all(function[4] & STABLE for m in measured for function in m['functions'])
    return {
        'clock': max(moved, key=abs),
        'step': max(m['step'] for m in measured),
        'early': max(m['early'] for m in measured),
        'late': max(m['late'] for m in measured) // 1000000,
        'bit': 'kept' if stable else 'lost',
        'page': page(measured),
        'log': len(vm.complaints),
        'warned': bool(vm.at.moved),
        'wrong': vm.wrong + contradictions(vm) + negative([vm.before] + measured),
        'inexact': inexact(vm) + ([] if stable else ['PVCLOCK_TSC_STABLE_BIT is lost']),
    }


def contradictions(vm):
    """Whatever the clock does: its readings and the functions both are a measurement of it."""
    wrong = []
    for m in vm.measured:
        total = difference(vm.first['functions'][0], m['functions'][0], m['tsc'])[0]
        least = m['reads'][0] - vm.first['reads'][1]
        most = m['reads'][1] - vm.first['reads'][0]
        if vm.machine.init != 'tsc' and not least <= total <= most:
            wrong.append(f'the clock reads {least} to {most} ns, the function says {total}')
        if m['back']:
            wrong.append('CLOCK_MONOTONIC went back')
    return wrong


def page(measured):
    """Whether Hyper-V's clock is the guest's, in units of 100 ns.

    The page's scale, offset and product are rounded, so the guest-clock.rst of the series
    allows for 2 units; a sequence of 0 means that the page is not to be used.
    """
    if 'reference' not in measured[0]:
        return '-'
    for m in measured:
        sequence, scale, offset = m['reference']
        off = (m['tsc'] * scale >> 64) + offset - clock(m['functions'][0], m['tsc']) // 100
        if sequence == 0 or not -2 <= off <= 2:
            return 'lost'
    return 'kept'


def negative(measured):
    """Times of a Xen guest's vCPUs that have become less."""
    wrong = []
    for a, b in zip(measured, measured[1:]):
        if b.get('steal', 0) < a.get('steal', 0):
            wrong.append('steal time went back')
        for old, new in zip(a.get('runstate', []), b.get('runstate', [])):
            if any(y < x for x, y in zip(old, new)):
                wrong.append(f'the runstate went from {old} to {new}')
    return wrong


def inexact(vm):
    """Why the clock is not one function of the TSC, for the guest and for the hosts."""
    log, first = vm.logged(), vm.first['functions'][0]
    seen = [f for m in vm.measured for f in m['functions']]
    seen += [[int(word) for word in found] for found in SAVED.findall('\n'.join(log))]
    reasons = [f'the function was {first} and is {f}' for f in seen
               if any(difference(first, f, vm.last['tsc']))]
    reasons += [f'{what} {m[what]} ns' for m in vm.measured for what in ('step', 'early') if m[what]]
    if page(vm.measured) == 'lost':
        reasons.append("Hyper-V's page is off")
    return reasons + [line for line in log if 'warning: kvmclock' in line] + vm.complaints


def check_exact(vm):
    figures = judge(vm)
    for reason in figures['wrong'] + figures['inexact']:
        raise Failure(reason)


def check_moved(vm):
    """The clock has moved, and QEMU said so; the readings agree all the same."""
    figures = judge(vm)
    for reason in figures['wrong']:
        raise Failure(reason)
    if not figures['clock'] or not figures['warned']:
        raise Failure(f'the clock moved by {figures["clock"]} ns, and QEMU said {vm.at.moved}')
