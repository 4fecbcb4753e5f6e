#!/usr/bin/env python3
"""An RC endpoint of RoCE v2 on one ordinary UDP socket, written without looking at corelane's.

It was checked against the kernel's rxe driver, which accepts its packets. The other side is a
program that exchanges `QPN PSN GID` for `QPN PSN ADDRESS RKEY` over TCP, posts three receives, and
later sends 2,500 bytes and writes 1,500.

usage: rcpeer.py LOCAL_IP LOCAL_PORT REMOTE_IP REMOTE_PORT TCP_PORT
"""
import ipaddress
import socket
import struct
import sys
import zlib

lip, rip = ipaddress.ip_address(sys.argv[1]), ipaddress.ip_address(sys.argv[3])
lport, rport, tport = int(sys.argv[2]), int(sys.argv[4]), int(sys.argv[5])
V6 = lip.version == 6
gid = lip.packed if V6 else b'\0' * 10 + b'\xff\xff' + lip.packed
QPN, PSN = 0x00beef, 0xfffffc  # the first PSN wraps after four packets
u = socket.socket(socket.AF_INET6 if V6 else socket.AF_INET, socket.SOCK_DGRAM)
if not V6:
    u.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER = DO: DF set, identification 0
u.bind((str(lip), lport))
u.settimeout(20)
t = socket.create_connection((str(rip), tport))
f = t.makefile('rw')
f.write(f'{QPN:x} {PSN:x} {gid.hex()}\n')
f.flush()
rqpn, rpsn, va, rkey = (int(x, 16) for x in f.readline().split())


def icrc(src, dst, sport, dport, body):
    """Over `body`, from BTH to padding."""
    ulen = 8 + len(body) + 4
    if V6:
        ip = struct.pack('>IHBB', 0x6fffffff, ulen, 17, 255) + src.packed + dst.packed
    else:
        ip = struct.pack('>BBHHHBBH', 0x45, 0xff, 20 + ulen, 0, 0x4000, 255, 17, 0xffff)
        ip += src.packed + dst.packed
    udp = struct.pack('>HHHH', sport, dport, ulen, 0xffff)
    return struct.pack('<I', zlib.crc32(b'\xff' * 8 + ip + udp + body[:4] + b'\xff' + body[5:]))


def tx(op, psn, ext=b'', data=b'', ack=0, bad=0):
    pad = -len(data) % 4
    body = struct.pack('>BBHII', op, 0x40 | pad << 4, 0xffff, rqpn, ack << 31 | psn & 0xffffff)
    body += ext + data + b'\0' * pad
    c = icrc(lip, rip, lport, rport, body)
    u.sendto(body + (bytes(4) if bad else c), (str(rip), rport))


def rx0():
    p, a = u.recvfrom(9000)
    op, fl, _, q, ap = struct.unpack('>BBHII', p[:12])
    assert q & 0xffffff == QPN and a[:2] == (str(rip), rport)
    assert icrc(rip, lip, rport, lport, p[:-4]) == p[-4:], 'a bad ICRC'
    body, pad = p[12:-4], fl >> 4 & 3
    return op, ap & 0xffffff, ap >> 31, body[:len(body) - pad] if pad else body


qs = {False: [], True: []}  # requests and responses share the socket and may interleave


def rx(req=False):
    while not qs[req]:
        r = rx0()
        qs[r[0] < 13].append(r)
    return qs[req].pop(0)


def want_ack(syndrome, at):
    op, p, _, b = rx()
    assert (op, b[0], p) == (0x11, syndrome, at & 0xffffff), (op, b[0], p, at)


def reth(a, k, n):
    return struct.pack('>QII', a, k, n)


psn = PSN
u.settimeout(0.3)
tx(4, psn, data=b'x' * 100, ack=1, bad=1)
try:
    rx()
    sys.exit('a bad ICRC was answered')
except TimeoutError:
    pass
u.settimeout(20)
tx(4, psn, data=b'a' * 99 + b'z', ack=1)
want_ack(0x1f, psn)
psn += 1
tx(4, psn - 1, data=b'a' * 100, ack=1)  # a duplicate
want_ack(0x1f, psn - 1)
tx(4, psn + 5, data=b'a' * 100, ack=1)  # a gap
want_ack(0x60, psn)
d = bytes(i * 3 & 255 for i in range(4096))
tx(6, psn, reth(va, rkey, 4096), d[:1024])
tx(7, psn + 1, data=d[1024:2048])
tx(7, psn + 2, data=d[2048:3072])
tx(9, psn + 3, struct.pack('>I', 0xfeedf00d), d[3072:], ack=1)
want_ack(0x1f, psn + 3)
psn += 4
tx(12, psn, reth(va + 10, rkey, 2500), ack=1)
got = b''
for i in range(3):
    op, p, _, b = rx()
    assert (op, p) == (13 + i, psn + i & 0xffffff), (op, p)
    got += b[4:] if op != 14 else b
assert got == d[10:2510]
psn += 3
exp, msn = rpsn, 0
for msg in range(2):  # be the responder: a send of 2,500 bytes, a write of 1,500
    data = b''
    while True:
        op, p, a, b = rx(True)
        if p != exp:
            old = (exp - p & 0xffffff) < 0x800000
            aeth = struct.pack('>I', (0x1f if old else 0x60) << 24 | msn)
            tx(0x11, exp - 1 & 0xffffff if old else exp, aeth)
            continue
        exp = exp + 1 & 0xffffff
        if op in (6, 10):
            assert struct.unpack('>QII', b[:16]) == (0x1000, 0x42, 1500)
            b = b[16:]
        data += b
        last = op in (2, 4, 8, 10)
        msn += last
        if a:
            tx(0x11, p, struct.pack('>I', 0x1f << 24 | msn))
        if last:
            break
    assert data == bytes(i & 255 for i in range([2500, 1500][msg])), len(data)
tx(10, psn, reth(va, rkey ^ 0x5500, 16), b'q' * 16, ack=1)
want_ack(0x62, psn)
f.write('bye\n')
f.flush()
print('peer: ok')
