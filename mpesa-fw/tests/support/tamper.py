# What root can do to somebody's BPF objects and the usual tools can't. Arguments: a verb and its own.
#   replace LINK TYPE          gives a pinned link a program that passes everything (TYPE: xdp, tc), and stays until stdin ends
#   ahead INDEX DIRECTION PIN  attaches, in front of all others at TCX, a program that accepts everything, and pins the link
#   scribble MAP               lets a program write into the first value of the map with that id
import ctypes, platform, sys

SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_LOAD, OBJ_PIN, OBJ_GET, TEST_RUN, MAP_BY_ID, LINK_CREATE, LINK_UPDATE = 5, 6, 7, 10, 14, 28, 29
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    padded = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(SYS_BPF, command, padded, 128)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf({command})")
    return result


def u32(*words):
    return b"".join(word.to_bytes(4, "little") for word in words)


def pointer(buffer):
    return ctypes.addressof(buffer).to_bytes(8, "little")


def text(path):
    return ctypes.create_string_buffer(path.encode())


def instruction(code, registers=0, offset=0, immediate=0):
    return bytes([code, registers]) + offset.to_bytes(2, "little", signed=True) + immediate.to_bytes(4, "little", signed=True)


def load(kind, instructions, attach_type=0):
    code, licence = ctypes.create_string_buffer(instructions, len(instructions)), text("GPL")
    head = u32(kind, len(instructions) // 8) + pointer(code) + pointer(licence)
    return bpf(PROG_LOAD, head + bytes(24) + b"intruder".ljust(16, b"\0") + u32(0, attach_type))


def answering(kind):
    # Type, XDP_PASS or TC_ACT_OK, and BPF_XDP: a link takes only what is meant for the same kind of hook.
    number, answer, attach_type = {"xdp": (6, 2, 37), "tc": (3, 0, 0)}[kind]
    return load(number, instruction(0xB7, immediate=answer) + instruction(0x95), attach_type)


verb, *rest = sys.argv[1:]
if verb == "replace":
    path = text(rest[0])
    link = bpf(OBJ_GET, pointer(path) + u32(0, 0))
    bpf(LINK_UPDATE, u32(link, answering(rest[1]), 0, 0))
    print("done", flush=True)
    sys.stdin.read()
elif verb == "ahead":
    attach_type, before = {"ingress": 46, "egress": 47}[rest[1]], 1 << 3
    link = bpf(LINK_CREATE, u32(answering("tc"), int(rest[0]), attach_type, before))
    path = text(rest[2])
    bpf(OBJ_PIN, pointer(path) + u32(link, 0))
elif verb == "scribble":
    table = bpf(MAP_BY_ID, u32(int(rest[0]), 0, 0))
    program = load(
        6,
        instruction(0x62, 0x0A, -4, 0)  # *(u32 *)(r10 - 4) = 0
        + instruction(0xBF, 0xA2)  # r2 = r10
        + instruction(0x07, 0x02, 0, -4)  # r2 += -4
        + instruction(0x18, 0x11, 0, table) + instruction(0)  # r1 = the map
        + instruction(0x85, immediate=1)  # bpf_map_lookup_elem
        + instruction(0x15, 0x00, 1)  # if r0 == 0 skip
        + instruction(0x62, 0x00, 0, 0x55555555)  # *(u32 *)r0 = …
        + instruction(0xB7, immediate=2)
        + instruction(0x95),
    )
    frame = ctypes.create_string_buffer(64)
    # prog_fd, retval, data_size_in, data_size_out, data_in, data_out, repeat, duration
    bpf(TEST_RUN, u32(program, 0, 64, 0) + pointer(frame) + bytes(8) + u32(1, 0))
