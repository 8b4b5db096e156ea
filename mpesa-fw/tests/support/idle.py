"""One end of a connection that waits, says nothing unless it gets SIGUSR1, and prints how the wait ends."""

import errno
import signal
import socket
import sys
import threading


def wait(connection, who, echo):
    try:
        while data := connection.recv(64):
            if echo:
                connection.sendall(data)
            print(who, "got", flush=True)
        print(who, "EOF", flush=True)
    except OSError as error:
        print(who, errno.errorcode[error.errno], flush=True)


def host(address):
    return address[0].removeprefix("::ffff:")


def serve(port, once):
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    print("listening", flush=True)
    while True:
        connection, peer = server.accept()
        who = f"{host(peer)}:{peer[1]}"
        print(who, "called", flush=True)
        threading.Thread(target=wait, args=(connection, who, True)).start()
        if once:
            return server.close()


def serve_datagrams(port):
    """Serves whoever comes first, by a socket that is connected then."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", port))
    print("listening", flush=True)
    data, peer = server.recvfrom(64)
    server.connect(peer)
    server.sendall(data)
    wait(server, f"{peer[0]}:{peer[1]}", True)


def call(address, port, kind):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, kind)
    connection.connect((address, port))
    signal.signal(signal.SIGUSR1, lambda *_: connection.send(b"?"))
    print("connected from", connection.getsockname()[1], ".", flush=True)
    wait(connection, "it", False)


match sys.argv[1:]:
    case ["serve", port]:
        serve(int(port), False)
    case ["serve-once", port]:
        serve(int(port), True)
    case ["serve-datagrams", port]:
        serve_datagrams(int(port))
    case ["tcp", address, port]:
        call(address, int(port), socket.SOCK_STREAM)
    case ["udp", address, port]:
        call(address, int(port), socket.SOCK_DGRAM)
