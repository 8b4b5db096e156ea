# Sends SYNs at a steady rate until stdin ends; then prints how many went, as JSON. Arguments: interface, constants as JSON.
import errno, json, select, socket, struct, sys, time

interface, told = sys.argv[1], json.loads(sys.argv[2])
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind((interface, 0))
KINDS = 4096  # different frames of each kind


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def syn(source, port):
    source, target = socket.inet_aton(source), socket.inet_aton(told["H4"])
    tcp = struct.pack("!HHLLBBHHHBBH", port, told["port"], 1, 0, 6 << 4, 2, 64240, 0, 0, 2, 4, 1460)
    total = checksum(source + target + struct.pack("!BBH", 0, 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", total) + tcp[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0, source, target)
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    ethernet = bytes.fromhex((told["HOST"] + told["PEER"]).replace(":", "")) + b"\x08\x00"
    return ethernet + ip + tcp


def frames(sources):
    return [syn(sources[n % len(sources)], 1024 + n) for n in range(KINDS)]


denied = frames(["198.51.%d.%d" % (n % 256, 1 + n % 250) for n in range(1000)])
forged = frames(told["forged"])
sent = {"denied": 0, "forged": 0}
print('"ready"', flush=True)
begin, turn = time.monotonic(), 0
while True:
    due = int((time.monotonic() - begin) * told["rate"])
    for _ in range(min(due - turn, 256)):
        kind, frame = ("forged", forged) if turn % 6 == 0 else ("denied", denied)
        turn += 1
        try:
            out.send(frame[turn // 6 % KINDS])
            sent[kind] += 1
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # The receiver's queue is full.
                raise
    if select.select([sys.stdin], [], [], 0.0002 if due <= turn else 0)[0]:
        break
print(json.dumps(sent), flush=True)
