# SPDX-License-Identifier: GPL-2.0
"""Two emulated hosts, the QEMUs that run on them, and a guest that moves between them.

A host is driven through its serial ports, see host.sh: a shell, and the monitors and guests'
consoles of two QEMUs.
"""

import contextlib
import json
import os
import re
import select
import shlex
import socket
import subprocess
import tempfile
import threading
import time

LIMIT = 300  # seconds that a port may say nothing while something is waited for
PORTS = ('shell', 'qmp0', 'guest0', 'qmp1', 'guest1')
FILE_PORT = 4002  # at which a host's /tmp is
LOG = '/tmp/qemu.log'  # on a host, of all its QEMUs
NUDGE = 0.25  # seconds between two frames
FRAME = b'\xff' * 6 + b'\x02' + bytes(5) + b'\x88\xb5' + bytes(46)  # experimental, to all

# The guest's kernel has its say within lines of others, too.
MESSAGE = re.compile(r'(?=\[ *[0-9]+\.[0-9]{6}\] )')
# What the guest's kernel says about a clock that it does not trust, or that jumped.
COMPLAINT = re.compile(r'^\[ *[0-9.]+\].*('
                       r'clocksource: |[Tt]ime.*(jump|backward|went)|TSC.*(unstable|warp)|'
                       r'soft lockup|rcu.*stall|Call Trace|BUG:|WARNING:)')
# Emulated CPUs are slow: one sometimes is, when another one wants to compare clocks.
SLOW = re.compile(r'read timed out|read-back delay|Switched to clocksource')

PROGRAM = {
    'patched': '/files/patched/qemu-system-x86_64 -L /files/patched',
    'debian': '/files/unpatched/ld-linux-x86-64.so.2 --library-path /files/unpatched '
              '/files/unpatched/qemu-system-x86_64 -L /files/unpatched',
}


class Failure(Exception):
    """What was expected did not happen."""


class Silence(Failure):
    """A port says nothing any more."""


class Port:
    """A serial port of a host."""

    def __init__(self, path, transcript):
        self.name, self.transcript, self.text = os.path.basename(path), transcript, b''
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)

    def connect(self, machine):
        while not select.select([self.listener], [], [], 0.5)[0]:
            if machine.poll() is not None:
                raise Failure(f'host {self.name[0]} did not start')
        self.socket = self.listener.accept()[0]
        self.socket.settimeout(LIMIT)

    def send(self, line):
        self.note('<', line)
        self.socket.sendall(line.encode() + b'\n')

    def line(self):
        while b'\n' not in self.text:
            try:
                more = self.socket.recv(65536)
            except TimeoutError:
                raise Silence(f'{self.name} says nothing for {LIMIT} s') from None
            if not more:
                raise Failure(f'host {self.name[0]} has gone')
            self.text += more
        line, self.text = self.text.split(b'\n', 1)
        line = line.decode(errors='replace').rstrip('\r')
        self.note('>', line)
        return line

    def note(self, direction, line):
        print(f'{time.monotonic():.3f} {self.name} {direction} {line}', file=self.transcript)


class Host:
    """An emulated host, number 1 or 2."""

    def __init__(self, number, link, logs, transcript, options):
        self.number, self.address, self.log = number, f'10.0.0.{number}', f'{logs}/{number}'
        self.ports = {name: Port(f'{link}/{number}.{name}', transcript) for name in PORTS}
        with open(f'{self.log}.tap', 'w', encoding='utf-8') as tap:
            self.machine = subprocess.Popen(
                ['lab/run', '-l', link, '-o', self.log, *options, f'migrate-{number}'],
                stdin=subprocess.DEVNULL, stdout=tap, stderr=tap)

    def wait(self):
        """Until it is switched on: its kernel has been told the TSC's rate."""
        for port in self.ports.values():
            port.connect(self.machine)
        with open(f'{self.log}/command', encoding='utf-8') as command:
            self.khz = int(re.search(r'tsc_early_khz=(\d+)', command.read())[1])

    def sh(self, command):
        """Run a command, and return what it prints."""
        lines, status = [], None
        self.ports['shell'].send(f'{{ {command}\n}} </dev/null; printf "\\nstatus %d\\n" $?')
        while not status:
            lines.append(self.ports['shell'].line())
            status = re.fullmatch(r'status (\d+)', lines[-1])
        if status[1] != '0':
            raise Failure(f'host {self.number}: {command}: ' + ' / '.join(lines))
        return '\n'.join(lines[:-1]).strip()

    def take_log(self):
        """What the QEMUs on this host have printed since the last time."""
        return self.sh(f'cat {LOG}; : >{LOG}').splitlines()

    def use_clocksource(self, name):
        self.sh(f'echo {name} >/sys/devices/system/clocksource/clocksource0/current_clocksource')

    def switch_off(self):
        self.ports['shell'].send('exit')
        if self.machine.wait(LIMIT):
            raise Failure(f'host {self.number} has failed')


@contextlib.contextmanager
def nudges(link):
    """Send both hosts a frame that they drop, again and again.

    QEMU emulates VMRUN and #VMEXIT without the lock that guards interrupt_request
    (svm_helper.c, seen in 7.2 and 10.0). An interrupt that is requested at the same moment is
    lost, and a host that loses its timer's stands still until another one comes.
    """
    end = threading.Event()

    def nudge():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            while not end.wait(NUDGE):
                for number in 1, 2:
                    with contextlib.suppress(OSError):  # not switched on, or off again
                        sender.sendto(FRAME, socket.MSG_DONTWAIT, f'{link}/{number}')

    thread = threading.Thread(target=nudge)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@contextlib.contextmanager
def hosts(base, logs, ppm=0, kernel2=None):
    """Two hosts; with the TSC of host 1 told to be faster, or another kernel on host 2."""
    os.makedirs(logs, exist_ok=True)
    both = []
    with (tempfile.TemporaryDirectory() as link, nudges(link),
          open(f'{logs}/transcript', 'w', encoding='utf-8', buffering=1) as transcript):
        try:
            # Host 2 is switched on first, so that their TSCs differ.
            options = ['-k', kernel2] if kernel2 else []
            both.append(Host(2, link, logs, transcript, ['-b', base] + options))
            both[0].wait()
            khz = both[0].khz + both[0].khz * ppm // 1000000
            both.append(Host(1, link, logs, transcript, ['-b', base, '-t', str(khz)]))
            both[1].wait()
            for host in both:
                host.sh(f'ifconfig eth0 {host.address} up; httpd -p {FILE_PORT} -h /tmp; : >{LOG}')
            yield both[1], both[0]
            for host in both:
                host.switch_off()
        finally:
            for host in both:
                host.machine.terminate()


class Qemu:
    """A QEMU on a host; slot tells two on one host apart."""

    def __init__(self, host, words, slot=0, wait=True):
        self.host, self.slot, self.events, self.moved = host, slot, [], []
        self.monitor, self.console = host.ports[f'qmp{slot}'], host.ports[f'guest{slot}']
        host.sh(f'({words}'
                f' -chardev pipe,id=monitor,path=/dev/qmp{slot} -mon chardev=monitor,mode=control'
                f' -chardev pipe,id=serial,path=/dev/guest{slot} -serial chardev:serial'
                f' -pidfile /tmp/pid{slot} >>{LOG} 2>&1; status=$?;'
                ' echo "{\\"event\\": \\"ENDED\\", \\"data\\": {\\"status\\": $status}}"'
                f' >/dev/qmp{slot}) &')
        if wait:
            self.greet()

    def greet(self):
        while 'QMP' not in self.message():
            pass
        self.qmp('qmp_capabilities')
        self.enable('events')

    def message(self, may_end=False):
        message = json.loads(self.monitor.line())
        if message.get('event') == 'ENDED' and not may_end:
            why = self.host.sh(f'tail -n 1 {LOG}')
            raise Failure(f'QEMU on host {self.host.number} ended: {why}')
        if message.get('event') == 'GUEST_CLOCK_MOVED':
            self.moved.append(message['data'])
        return message

    def qmp(self, command, **arguments):
        arguments = {name.replace('_', '-'): value for name, value in arguments.items()}
        self.monitor.send(json.dumps({'execute': command, 'arguments': arguments}))
        while 'event' in (message := self.message()):
            self.events.append(message)
        if 'error' in message:
            raise Failure(f'{command}: {message["error"]["desc"]}')
        return message['return']

    def event(self, name, *statuses):
        """Wait for this event, and for one of these statuses if there are some."""
        while True:
            event = self.events.pop(0) if self.events else self.message(name == 'ENDED')
            if event.get('event') == name and (not statuses or event['data']['status'] in statuses):
                return event['data'].get('status') if 'data' in event else None

    def enable(self, *capabilities, state=True):
        self.qmp('migrate-set-capabilities',
                 capabilities=[{'capability': name, 'state': state} for name in capabilities])

    def until(self, status):
        while self.qmp('query-status')['status'] != status:
            pass

    def job(self, command, **arguments):
        self.qmp(command, job_id='job', **arguments)
        self.event('JOB_STATUS_CHANGE', 'concluded')
        job, = self.qmp('query-jobs')
        if 'error' in job:
            raise Failure(f'{command}: {job["error"]}')
        self.qmp('job-dismiss', id='job')

    def begin(self, uri, bandwidth=1 << 40):
        self.qmp('migrate-set-parameters', max_bandwidth=bandwidth)
        self.events.clear()     # of the migration by which the guest came
        self.qmp('migrate', uri=uri)

    def migrate(self, uri):
        self.begin(uri)
        self.migrated()

    def migrated(self, wanted='completed'):
        status = self.event('MIGRATION', 'completed', 'failed', 'cancelled')
        if status != wanted:
            raise Failure(f'the migration has {status}')

    def examine(self):
        """What a guest that is silent is about; the transcript has more."""
        status = self.qmp('query-status')['status']
        for what in 'info lapic 0', 'info lapic 1', 'info pic', 'info registers -a':
            seen = self.qmp('human-monitor-command', command_line=what)
        self.host.sh(f'tail -n 40 {LOG}; dmesg | tail -n 20')
        return f'{status}, ' + ', '.join(re.findall(r'RIP=\S+|HLT=\d', seen))

    def quit(self):
        self.qmp('quit')
        if self.event('ENDED') != 0:
            raise Failure(f'QEMU on host {self.host.number} failed in the end')

    def kill(self):
        """It may have ended by itself, as its migration has failed."""
        self.host.sh(f'kill -KILL $(cat /tmp/pid{self.slot}) || :')
        self.event('ENDED')


def words(qemu, machine, policy, host):
    """The command line of one of the two QEMUs."""
    return f'{PROGRAM[qemu]} ' + shlex.join(machine.words(qemu == 'patched', policy, host))


class Guest:
    """A guest, wherever it runs."""

    def __init__(self, pair, qemu, machine, policy=None):
        self.pair, self.machine = pair, machine
        self.words = words(qemu, machine, policy, pair[0])
        self.at, self.last = Qemu(pair[0], self.words), None
        self.boot()

    def boot(self):
        self.begin()
        self.expect('guest ready')
        self.measure()
        self.first = self.last
        self.begin()

    def begin(self):
        """Forget what was measured, found wrong, logged and said."""
        self.before, self.measured, self.wrong = self.last, [], []
        self.complaints, self.at.moved = [], []
        self.logged()

    def logged(self):
        """What its QEMUs have printed."""
        return [line for host in self.pair for line in host.take_log()]

    @property
    def there(self):
        """The host where it does not run."""
        return self.pair[self.at.host is self.pair[0]]

    def expect(self, text):
        while text not in (line := self.line()):
            if 'guest failed' in line:
                raise Failure(line)
            self.hear(line)
        return line

    def hear(self, line):
        if COMPLAINT.search(line) and not SLOW.search(line):
            self.complaints.append(line)

    def line(self):
        try:
            return self.at.console.line()
        except Silence as silence:
            raise Failure(f'{silence}: {self.at.examine()}') from None

    def tell(self, line):
        self.at.console.send(line)

    def measure(self):
        self.tell('measure')
        answer, line = '', self.expect('measured {').split('measured ', 1)[1]
        while True:
            part, *message = MESSAGE.split(line, maxsplit=1)
            answer += part
            for text in message:
                self.hear(text)
            if answer.endswith('}'):
                break
            line = self.line()
        self.last = json.loads(answer)
        self.measured.append(self.last)

    def incoming(self, host, uri, slot=0, capabilities=(), options=''):
        qemu = Qemu(host, f'{self.words} -incoming defer {options}', slot)
        qemu.enable(*capabilities)
        qemu.qmp('migrate-incoming', uri=uri)
        return qemu

    def moved_to(self, qemu, *event):
        """Wait until it has come to that QEMU; the one it came from has done its work."""
        qemu.event(*event or ('RESUME',))
        qemu.qmp('query-status')    # GUEST_CLOCK_MOVED comes after RESUME, and before this
        self.at.quit()
        qemu.moved = self.at.moved + qemu.moved
        self.at = qemu

    def migrate(self, *event):
        uri = f'tcp:{self.there.address}:4001'
        qemu = self.incoming(self.there, uri)
        self.at.migrate(uri)
        self.moved_to(qemu, *event)

    def end(self):
        self.at.kill()
