# Loads a program that passes everything, as another product would, and pins it. Arguments: xdp, tc, tc-accept or
# setsockopt, the pin.
import ctypes, platform, sys

SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_LOAD, OBJ_PIN = 5, 6
# Program type, attach type, and the answer by which it has no objection: XDP_PASS, TC_ACT_UNSPEC; or TC_ACT_OK, after which no
# other is asked.
TYPE, PLACE, ANSWER = {"xdp": (6, 0, 2), "tc": (3, 0, -1), "tc-accept": (3, 0, 0), "setsockopt": (25, 22, 1)}[sys.argv[1]]
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    padded = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(SYS_BPF, command, padded, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result


def pointer(buffer):
    return ctypes.addressof(buffer).to_bytes(8, "little")


# r0 = ANSWER; exit
code = ctypes.create_string_buffer(bytes([0xB7, 0, 0, 0]) + ANSWER.to_bytes(4, "little", signed=True) + bytes([0x95, 0, 0, 0, 0, 0, 0, 0]), 16)
licence = ctypes.create_string_buffer(b"GPL")
name = b"foreign".ljust(16, b"\0")
# prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, prog_name, prog_ifindex,
# expected_attach_type
attributes = TYPE.to_bytes(4, "little") + (2).to_bytes(4, "little") + pointer(code) + pointer(licence) + bytes(24) + name + \
    bytes(4) + PLACE.to_bytes(4, "little")
program = bpf(PROG_LOAD, attributes)
path = ctypes.create_string_buffer(sys.argv[2].encode())
bpf(OBJ_PIN, pointer(path) + program.to_bytes(4, "little"))
