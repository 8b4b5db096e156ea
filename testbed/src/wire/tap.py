# Tells which marked frames arrived. One line of JSON in, one out. Arguments: interface, constants (not used).
import json, select, socket, sys, time

ALL_PROTOCOLS = 3
OUTGOING = 4
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
tap.bind((sys.argv[1], ALL_PROTOCOLS))
tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)


def marks(until, seconds):
    """The marks that arrive until that one does, or for so many seconds."""
    seen, deadline = [], time.monotonic() + seconds
    while until not in seen and time.monotonic() < deadline:
        ready, _, _ = select.select([tap], [], [], 0.1)
        if ready:
            frame, address = tap.recvfrom(65535)
            if address[2] != OUTGOING and frame[6:8] == b"\x02\xf0":
                seen.append(int.from_bytes(frame[8:12], "big"))
    return seen


print('"ready"', flush=True)
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(marks(request["until"], request["seconds"])), flush=True)
