# Sends frames that scapy makes. One line of JSON in, one out. Arguments: interface, constants as JSON.
import errno, json, os, socket, sys, traceback
from functools import reduce

from scapy.config import conf
from scapy.packet import Raw
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Dot3, Ether, LLC, STP, GRE
from scapy.layers.inet import *
from scapy.layers.inet6 import *
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import *
from scapy.layers.sctp import SCTP, SCTPChunkInit

conf.verb = 0
interface = sys.argv[1]
globals().update(json.loads(sys.argv[2]))
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind((interface, 0))
os.sched_setaffinity(0, {0})  # Frames sent on one CPU arrive in their order.
mark = 0


def to_host():
    return Ether(src=PEER, dst=HOST)


def to_router():
    return Ether(src=HOST, dst=PEER)


def send(packet):
    """Sends one frame, its hardware source replaced by a mark; returns the mark."""
    global mark
    mark += 1
    frame = bytes(packet)
    frame = frame[:6] + bytes([0x02, 0xf0]) + mark.to_bytes(4, "big") + frame[12:]
    try:
        out.send(frame)
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # TC egress has dropped it.
            raise
    return mark


def answer(request):
    if "evaluate" in request:
        return eval(request["evaluate"], globals())
    made = [eval(expression, globals()) for expression in request["send"]]
    return [[send(one) for one in (packets if isinstance(packets, list) else [packets])] for packets in made]


print('"ready"', flush=True)
for line in sys.stdin:
    try:
        print(json.dumps(answer(json.loads(line))), flush=True)
    except Exception:
        print(json.dumps({"error": line + traceback.format_exc()}), flush=True)
