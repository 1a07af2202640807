// SPDX-License-Identifier: GPL-2.0
/*
 * Test vm_clock.c on a KVM of variables: that no damage of a saved state is accepted,
 * and what it asks of KVM in each case.  Prints TAP.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Its static functions, too: the checksum is needed to damage a state and hide it. */
#include "vm_clock.c"
#include "fake_kvm.h"

#define VCPUS	3
#define KHZ	2600123u

static int vcpus[FAKE_MAX_VCPUS];
static unsigned int results, failures;

static void check(bool ok, const char *what)
{
	printf("%s %u - %s, %zu-bit program\n", ok ? "ok" : "not ok", ++results, what,
	       8 * sizeof(void *));
	failures += !ok;
}

/* A machine that has all there is; its boot is this machine's. */
static void reset(void)
{
	fake_kvm = (struct fake_kvm){
		.has_clock_guest = true,
		.has_scale = true,
		.has_msr_tsc = true,
		/* 47.123456 % of the host's rate */
		.scale = { .tsc_ratio = (uint64_t)(0.47123456 * (1ull << 48)), .tsc_frac_bits = 48 },
		.clock = {
			.flags = KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC,
			.clock = 1234567890123,
			.realtime = 1800000000123456789,
			.host_tsc = 987654321987654,
		},
		.function = {
			.tsc_timestamp = 0xfffffffff0000000,
			.system_time = 4711,
			.tsc_to_system_mul = 0xc4e9ed45,
			.tsc_shift = -1,
			.flags = PVCLOCK_TSC_STABLE_BIT,
		},
	};
	for (int i = 0; i < FAKE_MAX_VCPUS; i++) {
		vcpus[i] = FAKE_VCPU(i);
		fake_kvm.vcpus[i].khz = KHZ;
		fake_kvm.vcpus[i].offset = -12345678901ull * (i + 1);
		fake_kvm.vcpus[i].deadline = 1ull << 50;
	}
}

struct blob {
	struct vm_clock_state state;
	struct vm_clock_vcpu vcpus[FAKE_MAX_VCPUS];
};

static void seal(struct blob *blob)
{
	blob->state.checksum = checksum(blob, blob->state.size);
}

static struct blob save(unsigned int nr_vcpus)
{
	struct blob blob = { 0 };

	if (vm_clock_save(FAKE_VM, vcpus, nr_vcpus, &blob, sizeof(blob)) < 0) {
		perror("vm_clock_save");
		exit(1);
	}
	return blob;
}

static bool is_refused(const void *blob, size_t size, int error)
{
	errno = 0;
	return vm_clock_validate(blob, size) < 0 && errno == error;
}

static void test_damage(void)
{
	struct blob blob = save(VCPUS);
	size_t size = blob.state.size, accepted = 0;
	uint8_t *bytes = malloc(size + 1);

	check(vm_clock_validate(&blob, size) == 0, "an intact state is accepted");
	for (size_t bit = 0; bit < 8 * size; bit++) {
		memcpy(bytes, &blob, size);
		bytes[bit / 8] ^= 1 << bit % 8;
		accepted += vm_clock_validate(bytes, size) == 0;
	}
	check(!accepted, "with any single bit flipped it is refused");

	for (size_t n = 0; n < size; n++) {
		/* Exactly as much memory as the caller says, for ASan. */
		uint8_t *cut = malloc(n ? n : 1);

		memcpy(cut, &blob, n);
		accepted += !is_refused(cut, n, EBADMSG);
		free(cut);
	}
	check(!accepted, "cut off at any byte it is refused");

	memcpy(bytes, &blob, size);
	bytes[size] = 0;
	check(is_refused(bytes, size + 1, EBADMSG), "with a byte more it is refused");
	memcpy(bytes + 1, &blob, size);
	check(vm_clock_validate(bytes + 1, size) == 0, "it need not be aligned");
	free(bytes);
}

/* One field that is out of range, and a checksum that is right. */
static void test_range(void)
{
	const struct blob good = save(VCPUS);
	struct blob bad, none = good;

#define REFUSE(template, field, value, error)						\
	do {										\
		bad = template;								\
		bad.state.field = value;						\
		seal(&bad);								\
		check(is_refused(&bad, good.state.size, error), #field " = " #value);	\
	} while (0)

	REFUSE(good, magic[0], 'v', EBADMSG);
	REFUSE(good, version, 0, EPROTONOSUPPORT);
	REFUSE(good, version, 2, EPROTONOSUPPORT);
	REFUSE(good, nr_vcpus, 0, EBADMSG);
	REFUSE(good, nr_vcpus, VCPUS - 1, EBADMSG);
	REFUSE(good, nr_vcpus, VCPUS + 1, EBADMSG);
	REFUSE(good, nr_vcpus, UINT32_MAX, EBADMSG);
	/* A product that is right modulo 2^32 */
	REFUSE(good, nr_vcpus, VCPUS + (1u << 28), EBADMSG);
	REFUSE(good, flags, VM_CLOCK_HAS_FUNCTION << 1, EBADMSG);
	REFUSE(good, flags, VM_CLOCK_HAS_FUNCTION | 1u << 31, EBADMSG);
	REFUSE(good, flags, 0, EBADMSG);
	REFUSE(good, tsc_khz, 0, EBADMSG);
	REFUSE(good, tsc_khz, 1u << 31, EBADMSG);
	REFUSE(good, tsc_ratio, 0, EBADMSG);
	REFUSE(good, tsc_frac_bits, 0, EBADMSG);
	REFUSE(good, tsc_frac_bits, 64, EBADMSG);
	REFUSE(good, tai_offset_s, MAX_TAI_OFFSET + 1, EBADMSG);
	REFUSE(good, clock_ns, 1ull << 63, EBADMSG);
	REFUSE(good, realtime_ns, 1ull << 63, EBADMSG);
	REFUSE(good, window_ns, 1ull << 63, EBADMSG);
	REFUSE(good, reserved, 1, EBADMSG);
	REFUSE(good, function.version, 2, EBADMSG);
	REFUSE(good, function.pad0, 1, EBADMSG);
	REFUSE(good, function.pad[0], 1, EBADMSG);
	REFUSE(good, function.pad[1], 0x80, EBADMSG);
	REFUSE(good, function.flags, PVCLOCK_GUEST_STOPPED, EBADMSG);
	REFUSE(good, function.tsc_to_system_mul, 0, EBADMSG);
	REFUSE(good, function.tsc_to_system_mul, INT32_MAX, EBADMSG);
	REFUSE(good, function.tsc_shift, 32, EBADMSG);
	REFUSE(good, function.tsc_shift, -32, EBADMSG);

	/* Without the function, none of it may be left. */
	none.state.flags = 0;
	memset(&none.state.function, 0, sizeof(none.state.function));
	seal(&none);
	check(vm_clock_validate(&none, none.state.size) == 0, "no function is accepted");
	REFUSE(none, function.system_time, 1, EBADMSG);

	/* Without vCPUs, there is neither a function nor a rate. */
	none = save(0);
	check(vm_clock_validate(&none, none.state.size) == 0, "no vCPUs are accepted");
	bad = none;
	bad.state.tsc_khz = 1;
	seal(&bad);
	check(is_refused(&bad, bad.state.size, EBADMSG), "no vCPUs, but a rate");
	bad = none;
	bad.state.flags = VM_CLOCK_HAS_FUNCTION;
	bad.state.function = good.state.function;
	seal(&bad);
	check(is_refused(&bad, bad.state.size, EBADMSG), "no vCPUs, but a function");
}

static void test_checksum(void)
{
	uint8_t text[offsetof(struct vm_clock_state, nr_vcpus) + 9];

	memcpy(text + sizeof(text) - 9, "123456789", 9);
	check(checksum(text, sizeof(text)) == 0xcbf43926, "the checksum is CRC-32");
}

#ifdef __SIZEOF_INT128__
/* rand() has at least 15 bits. */
static uint64_t random_bits(void)
{
	uint64_t value = 0;

	for (int i = 0; i < 5; i++)
		value = value << 15 ^ rand();
	return value >> rand() % 64;
}

static void test_arithmetic(void)
{
	struct vm_clock_state s;
	bool ok = true;

	for (int i = 0; i < 1000000; i++) {
		uint64_t a = random_bits(), b = random_bits();
		uint32_t divisor = random_bits() | 1;
		__uint128_t product = (__uint128_t)a * b;

		s.tsc_ratio = b;
		s.tsc_frac_bits = rand() % 64;
		ok &= multiply_divide(a, b, divisor) == (uint64_t)(product / divisor);
		ok &= scale_tsc(&s, a) == (uint64_t)(product >> s.tsc_frac_bits);
	}
	check(ok, "products have 128 bits");
}
#endif

static uint64_t scaled(uint64_t host_tsc)
{
	struct vm_clock_state s = {
		.tsc_ratio = fake_kvm.scale.tsc_ratio,
		.tsc_frac_bits = fake_kvm.scale.tsc_frac_bits,
	};

	return scale_tsc(&s, host_tsc);
}

static int restore_blob(const struct blob *blob, enum vm_clock_policy policy,
			struct vm_clock_result *result)
{
	fake_kvm.vm_calls = 0;
	for (int i = 0; i < FAKE_MAX_VCPUS; i++)
		fake_kvm.vcpus[i].calls = 0;
	return vm_clock_restore(FAKE_VM, vcpus, blob->state.nr_vcpus, blob, blob->state.size,
				policy, result);
}

/* Return true if every vCPU has the TSC of the save plus @cycles. */
static bool tscs_are(const struct blob *blob, uint64_t cycles)
{
	uint64_t before = scaled(blob->state.host_tsc), now = scaled(fake_kvm.clock.host_tsc);
	bool ok = true;

	for (unsigned int i = 0; i < blob->state.nr_vcpus; i++)
		ok &= now + fake_kvm.vcpus[i].offset ==
		      before + blob->vcpus[i].tsc_offset + cycles;
	return ok;
}

static void test_policies(void)
{
	struct blob blob = save(VCPUS);
	struct vm_clock_result result;
	uint64_t hour = 3600 * NSEC_PER_SEC, cycles;

	fake_kvm.clock.host_tsc += 123456789012;
	fake_kvm.clock.realtime += hour;
	cycles = scaled(fake_kvm.clock.host_tsc) - scaled(blob.state.host_tsc);
	check(restore_blob(&blob, VM_CLOCK_SAME_HOST, &result) == 0 && tscs_are(&blob, cycles) &&
	      result.policy == VM_CLOCK_SAME_HOST && result.outcome == VM_CLOCK_EXACT &&
	      result.elapsed_ns == cycles * 1000000 / KHZ && !result.bound_ns,
	      "on the same host, TSCs advance with the host's");
	check(fake_kvm.vcpus[2].offset == blob.vcpus[2].tsc_offset, "offsets are the same");
	check(restore_blob(&blob, VM_CLOCK_AUTO, &result) == 0 &&
	      result.policy == VM_CLOCK_SAME_HOST, "the same host is recognized");
	check(!memcmp(&fake_kvm.function, &blob.state.function, sizeof(fake_kvm.function)),
	      "the function is restored as it was saved");

	/* 2^33 cycles take 0xc4e9ed45 ns. */
	cycles = (long double)hour * (1ull << 33) / 0xc4e9ed45;
	check(restore_blob(&blob, VM_CLOCK_GO_ON, &result) == 0 &&
	      result.elapsed_ns == hour && tscs_are(&blob, cycles),
	      "time goes on by the clock's rate");
	check(restore_blob(&blob, VM_CLOCK_STAND_STILL, &result) == 0 && !result.elapsed_ns &&
	      tscs_are(&blob, 0), "time stands still");

	fake_kvm.clock.realtime -= 2 * hour;
	check(restore_blob(&blob, VM_CLOCK_GO_ON, &result) == 0 && !result.elapsed_ns &&
	      tscs_are(&blob, 0), "time does not go back");
	fake_kvm.clock.realtime += 2 * hour;

	/* The TAI offset of this machine may be 0, i.e. unknown. */
	blob.state.tai_offset_s = read_difference(CLOCK_REALTIME, CLOCK_TAI) / NSEC_PER_SEC;
	if (blob.state.tai_offset_s) {
		blob.state.tai_offset_s--;
		seal(&blob);
		check(restore_blob(&blob, VM_CLOCK_GO_ON, &result) == 0 &&
		      result.elapsed_ns == hour + NSEC_PER_SEC, "a leap second counts");
	} else {
		blob.state.tai_offset_s = 37;
		seal(&blob);
		check(restore_blob(&blob, VM_CLOCK_GO_ON, &result) == 0 &&
		      result.elapsed_ns == hour, "an unknown TAI offset does not count");
	}
}

/* What is not the same host; VM_CLOCK_SAME_HOST is then an error. */
static void test_other_hosts(void)
{
	struct blob blob = save(VCPUS), other;
	struct vm_clock_result result;

#define OTHER_HOST(change, explicit_error, what)						\
	do {											\
		other = blob;									\
		change;										\
		seal(&other);									\
		check(restore_blob(&other, VM_CLOCK_AUTO, &result) == 0 &&			\
		      result.policy == VM_CLOCK_GO_ON, what);					\
		check(explicit_error ==								\
		      (restore_blob(&other, VM_CLOCK_SAME_HOST, &result) < 0 ? errno : 0),	\
		      what ", though the policy says so");					\
	} while (0)

	OTHER_HOST(other.state.boot_id[35] ^= 1, EXDEV, "another boot");
	OTHER_HOST(memset(other.state.boot_id, 0, 36), 0, "an unknown boot");
	OTHER_HOST(other.state.host_tsc++, EXDEV, "a TSC that went back");
	OTHER_HOST(other.state.suspended_ns += 2 * SUSPEND_MIN_NS, EXDEV, "a suspend");

	other = save(0);
	check(restore_blob(&other, VM_CLOCK_SAME_HOST, &result) == 0 &&
	      result.policy == VM_CLOCK_GO_ON && result.outcome == VM_CLOCK_VALUE,
	      "without TSCs there is real time, and a value");
}

static bool falls_back(const struct blob *blob, int error)
{
	struct vm_clock_result result;
	bool ok;

	fake_kvm.set_clock = (struct kvm_clock_data){ 0 };
	ok = restore_blob(blob, VM_CLOCK_GO_ON, &result) == 0 &&
	     result.outcome == VM_CLOCK_VALUE && result.error == error && result.bound_ns &&
	     fake_kvm.set_clock.flags == KVM_CLOCK_REALTIME &&
	     fake_kvm.set_clock.realtime == fake_kvm.clock.realtime &&
	     fake_kvm.set_clock.clock == blob->state.clock_ns + result.elapsed_ns;
	printf("# %s\n", result.reason);
	return ok;
}

static void test_fallback(void)
{
	static const int errors[] = { ENODATA, ERANGE, EBUSY, EINVAL, ENOTTY };
	struct vm_clock_result result;
	struct blob blob = save(VCPUS);
	char what[100];

	fake_kvm.clock.realtime += NSEC_PER_SEC;
	for (unsigned int i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		fake_kvm.set_clock_guest = errors[i];
		snprintf(what, sizeof(what), "after %s, the value is set", strerror(errors[i]));
		check(falls_back(&blob, errors[i]), what);
	}
	fake_kvm.set_clock_guest = 0;

	fake_kvm.has_clock_guest = false;
	check(falls_back(&blob, ENOTTY), "without the capability, the value is set");
	fake_kvm.has_clock_guest = true;
	fake_kvm.get_clock_guest = ENODATA;
	blob = save(VCPUS);
	check(falls_back(&blob, 0), "without a function, the value is set");

	/* In 4000 s, 250 ppm are a second. */
	fake_kvm.clock.realtime += 4000 * NSEC_PER_SEC;
	check(restore_blob(&blob, VM_CLOCK_GO_ON, &result) == 0 &&
	      result.bound_ns >= NSEC_PER_SEC, "and the rate is known to 250 ppm");
}

static void test_errors(void)
{
	struct vm_clock_result result;
	struct blob blob = save(VCPUS);

#define FAILS(call, expected, what) \
	check(((call) < 0 ? errno : 0) == (expected) && result.reason && \
	      result.error == (expected), what)

	FAILS(vm_clock_restore(FAKE_VM, vcpus, VCPUS - 1, &blob, blob.state.size, VM_CLOCK_AUTO,
			       &result), EINVAL, "another number of vCPUs");
	FAILS(vm_clock_restore(FAKE_VM, vcpus, VCPUS, &blob, blob.state.size - 1, VM_CLOCK_AUTO,
			       &result), EBADMSG, "a damaged state");
	fake_kvm.set_khz = EINVAL;
	FAILS(restore_blob(&blob, VM_CLOCK_AUTO, &result), EINVAL, "a rate that can't be had");
	FAILS(vm_clock_check(FAKE_KVM, &blob, blob.state.size, VM_CLOCK_AUTO, &result), EINVAL,
	      "the same, found by vm_clock_check()");
	fake_kvm.set_khz = 0;
	fake_kvm.set_offset = ENXIO;
	FAILS(restore_blob(&blob, VM_CLOCK_AUTO, &result), ENXIO, "no KVM_VCPU_TSC_OFFSET");
	fake_kvm.set_offset = EINVAL;
	FAILS(restore_blob(&blob, VM_CLOCK_AUTO, &result), ENXIO, "no attributes of vCPUs");
	fake_kvm.set_offset = 0;
	fake_kvm.create_vm = ENOMEM;
	FAILS(vm_clock_check(FAKE_KVM, &blob, blob.state.size, VM_CLOCK_AUTO, &result), ENOMEM,
	      "no VM for the check");
	fake_kvm.create_vm = 0;
	fake_kvm.get_clock = EIO;
	FAILS(restore_blob(&blob, VM_CLOCK_AUTO, &result), EIO, "KVM_GET_CLOCK fails");
	fake_kvm.get_clock = 0;
	fake_kvm.set_clock_guest = ENODATA;
	fake_kvm.set_clock_error = EIO;
	FAILS(restore_blob(&blob, VM_CLOCK_AUTO, &result), EIO, "KVM_SET_CLOCK fails");

	reset();
	fake_kvm.has_clock_guest = fake_kvm.has_scale = false;
	blob = save(VCPUS);
	check(!blob.state.tsc_frac_bits, "a stock kernel with a TSC that is not scaled");
	fake_kvm.has_msr_tsc = false;
	FAILS(restore_blob(&blob, VM_CLOCK_AUTO, &result), ENOTSUP, "one that scales, on restore");
	errno = 0;
	check(vm_clock_save(FAKE_VM, vcpus, VCPUS, &blob, sizeof(blob)) < 0 && errno == ENOTSUP,
	      "one that scales, on save");

	reset();
	fake_kvm.vcpus[2].khz++;
	check(vm_clock_save(FAKE_VM, vcpus, VCPUS, &blob, sizeof(blob)) < 0 && errno == ENOTSUP,
	      "TSCs of different rates");
	check(vm_clock_save(FAKE_VM, vcpus, VCPUS, &blob, vm_clock_size(VCPUS) - 1) < 0 &&
	      errno == ENOSPC, "too little space");
	for (int i = 0; i < VCPUS; i++)
		fake_kvm.vcpus[i].khz = 0;
	check(vm_clock_save(FAKE_VM, vcpus, VCPUS, &blob, sizeof(blob)) < 0 && errno == EBADMSG,
	      "a state that no restore would take");
	check(vm_clock_save(FAKE_VM, vcpus, VM_CLOCK_MAX_VCPUS + 1, &blob, SIZE_MAX) < 0 &&
	      errno == EINVAL, "too many vCPUs");
}

/* At most 3 ioctls a vCPU and 5 a VM, also on the way back to KVM_SET_CLOCK. */
static void test_calls(void)
{
	struct blob blob = save(FAKE_MAX_VCPUS);
	struct vm_clock_result result;
	unsigned int most = 0, late = 0;

	for (int way = 0; way < 3; way++) {
		fake_kvm.set_clock_guest = way == 1 ? ERANGE : 0;
		fake_kvm.has_clock_guest = fake_kvm.has_scale = way != 2;
		if (way == 2)
			blob = save(FAKE_MAX_VCPUS);
		most = late = 0;
		check(restore_blob(&blob, VM_CLOCK_AUTO, &result) == 0, result.reason);
		for (int i = 0; i < FAKE_MAX_VCPUS; i++) {
			most = fake_kvm.vcpus[i].calls > most ? fake_kvm.vcpus[i].calls : most;
			late += fake_kvm.vcpus[i].deadline_is_armed_late;
		}
		printf("# %d vCPUs: %u ioctls each, and %u\n", FAKE_MAX_VCPUS, most,
		       fake_kvm.vm_calls);
		check(most <= 3 && fake_kvm.vm_calls <= 5, "at most 3 ioctls a vCPU and 5 a VM");
		check(late == FAKE_MAX_VCPUS, "deadlines are armed after the TSC is set");
	}
	for (int i = 0; i < FAKE_MAX_VCPUS; i++)
		blob.vcpus[i].tsc_deadline = 0;
	seal(&blob);
	restore_blob(&blob, VM_CLOCK_AUTO, &result);
	check(fake_kvm.vcpus[1].calls == 2, "a deadline that is not armed costs no ioctl");
}

int main(void)
{
	static void (*const tests[])(void) = {
		test_damage, test_range, test_checksum, test_policies, test_other_hosts,
		test_fallback, test_errors, test_calls,
#ifdef __SIZEOF_INT128__
		test_arithmetic,
#endif
	};

	for (unsigned int i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		reset();
		tests[i]();
	}
	printf("1..%u\n", results);
	return failures != 0;
}
