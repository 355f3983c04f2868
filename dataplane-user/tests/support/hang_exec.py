"""Lets nobody run a file until standard input ends, as a file system that hangs would: fanotify's permission events, as root."""

import ctypes
import os
import struct
import sys

FAN_CLASS_CONTENT, FAN_CLOEXEC, FAN_MARK_ADD, FAN_OPEN_EXEC_PERM, FAN_ALLOW, AT_FDCWD = 4, 1, 1, 0x40000, 1, -100

libc = ctypes.CDLL(None, use_errno=True)
libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
group = libc.fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, os.O_RDONLY)
marked = libc.fanotify_mark(group, FAN_MARK_ADD, FAN_OPEN_EXEC_PERM, AT_FDCWD, os.fsencode(sys.argv[1]))
if group < 0 or marked < 0:
    sys.exit(f"fanotify: {os.strerror(ctypes.get_errno())}")
print("hangs", flush=True)
sys.stdin.read()
# Closing the group would let everybody on as well; this says so of who waits already.
os.set_blocking(group, False)
try:
    event = os.read(group, 4096)
except BlockingIOError:
    sys.exit(0)
while event:
    length, descriptor = struct.unpack("I", event[:4])[0], struct.unpack("i", event[16:20])[0]
    os.write(group, struct.pack("iI", descriptor, FAN_ALLOW))
    event = event[length:]
