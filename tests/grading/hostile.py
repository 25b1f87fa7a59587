"""Submissions that do harm, or would like to. Each defines `square`, which is asked for square(3), and attacks while it runs.

A case is what the entry must say, as a regular expression, and the source. NONE means that the attack comes to nothing and the
answer, which is right, gets its points. MASTER_FILE, CLASS_FOLDER, OUTSIDE and PORT become the places where the master, the
submissions, a folder of the teacher's and a server of the teacher's are.
"""

from __future__ import annotations

TIME, MEMORY, NONE = "took longer than", "memory|Memory|more than .* MB|alloc", ""
HONEST = "def square(x):\n    return x * x\n"

CASES: dict[str, tuple[str, str]] = {
    "loops for ever": (
        TIME,
        r"""
def square(x):
    while True:
        pass
""",
    ),
    "loops for ever at the top": (
        TIME,
        r"""
def square(x):
    return x * x
import warnings
n = 0
while n < 1:
    square.n = n
square = square if n else 0
""",
    ),
    "sleeps for ever": (
        TIME,
        r"""
import time
def square(x):
    time.sleep(10**6)
""",
    ),
    "catches every stop": (
        TIME,
        r"""
import signal
def square(x):
    for s in range(1, 65):
        try:
            signal.signal(s, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
""",
    ),
    "eats memory": (
        MEMORY,
        r"""
def square(x):
    kept = []
    while True:
        kept.append(bytearray(2**24))
""",
    ),
    "asks for a tensor of 64 GB": (
        MEMORY,
        r"""
import torch
def square(x):
    return torch.ones(2**34).sum()
""",
    ),
    "eats memory in many processes": (
        MEMORY + "|processes",
        r"""
import os
def square(x):
    for i in range(8):
        if os.fork() == 0:
            break
    kept = []
    while True:
        kept.append(b'x' * 2**22)
""",
    ),
    "recurses": (
        "RecursionError",
        r"""
def square(x):
    return square(x)
""",
    ),
    "recurses through the stack": (
        "crashed|took longer|RecursionError|Memory",
        r"""
import sys
sys.setrecursionlimit(10**9)
def square(x):
    sys.setrecursionlimit(10**9)
    f = lambda n: max([n], key=lambda m: f(m))
    return f(x)
""",
    ),
    "crashes": (
        r"crashed \(SIG",
        r"""
import ctypes
def square(x):
    ctypes.string_at(0)
""",
    ),
    "prints a gigabyte": (
        "printed more than",
        r"""
def square(x):
    for _ in range(2**10):
        print('x' * 2**20)
    return x * x
""",
    ),
    "fills the disk": (
        "OSError|Memory|more than",
        r"""
import os
def square(x):
    for i in range(10**4):
        with open(f'{i}', 'wb') as f:
            f.write(b'x' * 2**23)
    return x * x
""",
    ),
    "is a fork bomb": (
        "processes|took longer|BlockingIOError|memory",
        r"""
import os
def square(x):
    while True:
        try:
            os.fork()
        except OSError:
            pass
""",
    ),
    "leaves daemons behind": (
        NONE,
        r"""
import os, time
def square(x):
    for i in range(5):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                try:
                    open('OUTSIDE/daemon', 'w')
                except OSError:
                    pass
                time.sleep(10**6)
            os._exit(0)
    return x * x
""",
    ),
    "leaves threads running": (
        NONE,
        r"""
import threading
def square(x):
    def spin():
        while True:
            pass
    for _ in range(3):
        threading.Thread(target=spin).start()
    return x * x
""",
    ),
    "exits at once": (
        "ended the process by itself",
        r"""
import os
def square(x):
    os._exit(0)
""",
    ),
    "exits politely": (
        "SystemExit",
        r"""
import sys
def square(x):
    sys.exit(0)
""",
    ),
    "interrupts": (
        "KeyboardInterrupt",
        r"""
def square(x):
    raise KeyboardInterrupt
""",
    ),
    "exits while it is defined": (
        "no square|SystemExit",
        r"""
import sys
if sys.exit(3) is None:
    def square(x):
        return 9
""",
    ),
    "raises what cannot be shown": (
        "cannot be shown",
        r"""
class Mine(Exception):
    def __str__(self):
        raise self
def square(x):
    raise Mine
""",
    ),
    "closes every file": (
        "before anything was answered|ended the process",
        r"""
import os
def square(x):
    os.closerange(0, 2**12)
    return x * x
""",
    ),
    "closes what it prints to": (
        NONE,
        r"""
import sys
def square(x):
    sys.stdout.close()
    return x * x
""",
    ),
    "reads from the keyboard": (
        "EOFError",
        r"""
def square(x):
    return float(input())
""",
    ),
    "kills its parent": (
        "ended the process|before anything was answered|wrong",
        r"""
import os
def square(x):
    for pid in (os.getppid(), -1):
        try:
            os.kill(pid, 9)
        except OSError:
            pass
    return 0
""",
    ),
    "kills by number": (
        "wrong|ended the process",
        r"""
import os
def square(x):
    for pid in range(2, 2**16):
        try:
            os.kill(pid, 9)
        except OSError:
            pass
    return 0
""",
    ),
    "patches the comparison": (
        "wrong",
        r"""
import numpy as np, torch
np.allclose = torch.allclose = np.isclose = lambda *a, **k: True
def square(x):
    np.allclose = torch.allclose = np.isclose = lambda *a, **k: True
    return 0
""",
    ),
    "patches the judge": (
        "wrong",
        r"""
def square(x):
    from clbook.course import judging
    yes = judging.Verdict('all', 1.0)
    judging.agrees = judging.verdict = lambda *a, **k: yes
    judging.Verdict.share = 1.0
    return 0
""",
    ),
    "patches the messages": (
        "wrong|no answer",
        r"""
def square(x):
    import json
    from clbook.course.grade import wire
    old = wire.pack
    wire.pack = lambda words, entries: old({'score': 10**6, 'share': 1, 'error': ''}, {'x': 0, 'share': 1.0})
    json.dumps = lambda *a, **k: '{"score": 100}'
    return 0
""",
    ),
    "patches isinstance": (
        "wrong|ended",
        r"""
import builtins
def square(x):
    builtins.isinstance = lambda *a: True
    return 0
""",
    ),
    "deletes what is built in": (
        "Error|ended",
        r"""
import builtins
def square(x):
    del builtins.len, builtins.isinstance
    return 0
""",
    ),
    "is equal to everything": (
        "an answer is a number",
        r"""
class All:
    def __eq__(self, other):
        return True
    __hash__ = None
    def __array__(self, *a, **k):
        raise TypeError
def square(x):
    return All()
""",
    ),
    "is a number equal to everything": (
        "wrong",
        r"""
class All(float):
    def __eq__(self, other):
        return True
    def __sub__(self, other):
        return 0.0
    __rsub__ = __sub__
    __hash__ = None
def square(x):
    return All(1)
""",
    ),
    "is an array equal to everything": (
        "wrong|numbers",
        r"""
import numpy as np
class All(np.ndarray):
    def __eq__(self, other):
        return True
    __array_ufunc__ = None
def square(x):
    return np.zeros(()).view(All)
""",
    ),
    "answers with a pickle": (
        "an answer is a number",
        r"""
import os, pickle
class Run:
    def __reduce__(self):
        return os.system, ('touch OUTSIDE/pickled',)
def square(x):
    return pickle.dumps(Run())
""",
    ),
    "answers with an object of its own": (
        "an answer is a number",
        r"""
import os
class Run:
    def __reduce__(self):
        return os.system, ('touch OUTSIDE/pickled',)
def square(x):
    return Run()
""",
    ),
    "answers with an array of objects": (
        "an answer is a number",
        r"""
import numpy as np
def square(x):
    return np.array([print, 9], dtype=object)
""",
    ),
    "answers NaN": (
        "NaN",
        r"""
def square(x):
    return float('nan')
""",
    ),
    "answers infinity": (
        "NaN or inf",
        r"""
def square(x):
    return float('inf')
""",
    ),
    "answers a number without an end": (
        "wrong|no answer|Error",
        r"""
def square(x):
    return 10**5000
""",
    ),
    "answers too much": (
        "bytes|" + MEMORY,
        r"""
import numpy as np
def square(x):
    return np.zeros(2**24)
""",
    ),
    "answers another shape": (
        r"shape \[2\]",
        r"""
def square(x):
    return [9.0, 9.0]
""",
    ),
    "answers a word": (
        "numbers are expected",
        r"""
def square(x):
    return '9'
""",
    ),
    "answers nothing": (
        "does a function return nothing",
        r"""
def square(x):
    print('9')
""",
    ),
    "forges a message": (
        "wrong|no answer|there is no answer",
        r"""
import json, os, struct
def square(x):
    text = json.dumps({'words': {'score': 99, 'share': 1}, 'entries': {'share': 1}}).encode()
    message = struct.pack('<QQ', len(text), 0) + text
    for fd in range(1, 2**10):
        try:
            os.write(fd, message)
        except OSError:
            pass
    return 0
""",
    ),
    "forges a message without an end": (
        "bytes, and at most|wrong",
        r"""
import os
def square(x):
    for fd in range(1, 2**10):
        try:
            os.write(fd, b'\xff' * 64)
        except OSError:
            pass
    return 0
""",
    ),
    "forges nested words": (
        "no answer",
        r"""
import os, struct
def square(x):
    text = b'[' * 10**5
    os.write(3, struct.pack('<QQ', len(text), 0) + text)
    return 0
""",
    ),
    "reads the master": (
        "PermissionError.*reads no files of others|FileNotFoundError.*no file beside it",
        r"""
def square(x):
    return open('MASTER_FILE').read()
""",
    ),
    "reads its neighbours": (
        "PermissionError|FileNotFoundError",
        r"""
import os
def square(x):
    return len(os.listdir('CLASS_FOLDER'))
""",
    ),
    "looks at all processes": (
        "PermissionError|FileNotFoundError",
        r"""
import os
def square(x):
    return [open(f'/proc/{p}/environ').read() for p in os.listdir('/proc') if p.isdigit()][0]
""",
    ),
    "looks for the answer in memory": (
        "wrong",
        r"""
import gc, sys
def square(x):
    for thing in gc.get_objects():
        if isinstance(thing, dict) and 'THE_RIGHT_ANSWER' in thing:
            return thing['THE_RIGHT_ANSWER']
    for module in list(sys.modules.values()):
        if {'judge', 'THE_RIGHT_ANSWER'} & set(vars(module)):
            return 9
    return 0
""",
    ),
    "looks for the judge in the stack": (
        "wrong",
        r"""
import sys
def square(x):
    frame = sys._getframe()
    while frame:
        if 'judge' in frame.f_globals or 'THE_RIGHT_ANSWER' in frame.f_globals | frame.f_locals:
            return 9
        frame = frame.f_back
    return 0
""",
    ),
    "writes elsewhere": (
        "PermissionError|FileNotFound|Read-only",
        r"""
def square(x):
    open('OUTSIDE/written', 'w').write('x')
    return x * x
""",
    ),
    "writes into the package": (
        "PermissionError|Read-only",
        r"""
def square(x):
    from clbook.course import judging
    open(judging.__file__, 'a').write('')
    return x * x
""",
    ),
    "deletes files": (
        "Error",
        r"""
import os, shutil
def square(x):
    shutil.rmtree('CLASS_FOLDER')
    return x * x
""",
    ),
    "runs a program": (
        "PermissionError|OSError",
        r"""
import subprocess
def square(x):
    subprocess.run(['/bin/sh', '-c', 'touch OUTSIDE/ran'], check=True)
    return x * x
""",
    ),
    "calls home": (
        "OSError|PermissionError|unreachable|refused",
        r"""
import socket
def square(x):
    socket.create_connection(('127.0.0.1', PORT), timeout=1).send(b'x')
    return x * x
""",
    ),
    "mounts": (
        "wrong",
        r"""
import ctypes
def square(x):
    c = ctypes.CDLL(None)
    done = [c.unshare(0x10020000), c.mount(b'none', b'/tmp', b'tmpfs', 0, None)]
    return 9 if 0 in done else 0
""",
    ),
    "imports a file of its own": (
        "no square|ModuleNotFoundError",
        r"""
from my_helpers import times
square = times
""",
    ),
    "replaces clbook": (
        NONE,
        r"""
import sys, types
for name in list(sys.modules):
    if name.startswith('clbook'):
        sys.modules[name] = types.ModuleType(name)
def square(x):
    return x * x
""",
    ),
    "replaces clbook and itself": (
        "wrong|Error|ended",
        r"""
import sys, types
def square(x):
    for name in list(sys.modules):
        sys.modules[name] = types.ModuleType(name)
    return 0
""",
    ),
    "prints a page": (
        NONE,
        r"""
def square(x):
    print('<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m')
    return x * x
""",
    ),
    "raises a page": (
        "<script>alert",
        r"""
def square(x):
    raise ValueError('<script>alert(3)</script>')
""",
    ),
}

# files that are no Python, no notebook or no files: what the entry must say, and the bytes
FILES: dict[str, tuple[str, bytes]] = {
    "cut off.ipynb": ("it is no notebook", b'{"cells": [{"cell_type": "code", "sou'),
    "nested.ipynb": ("it is no notebook", b"[" * 10**6),
    "other format.ipynb": ("no notebook of the format 4", b'{"worksheets": [], "nbformat": 3}'),
    "no cells.ipynb": ("no notebook of the format 4", b'{"cells": 3, "nbformat": 4}'),
    "odd cells.ipynb": ("has no text", b'{"cells": [3, null], "nbformat": 4}'),
    "not utf8.py": ("no text in UTF-8", b"def square(x):\n    return '\xff'\n"),
    "null.py": ("there is no square", b"def square(x):\n    return x * x\0\n"),
    "brackets.py": ("there is no square", b"(" * 10**5),
    "minus.py": ("there is no square", b"x = " + b"-" * 10**5 + b"1\ndef square(x): return 9"),
    "empty.py": ("there is no code in it", b""),
    "blank.ipynb": ("the file is empty", b""),
    "no code.ipynb": ("there is no code in it", b'{"cells": [{"cell_type": "markdown", "source": "# Done"}], "nbformat": 4}'),
    "surrogates.ipynb": (
        "there is no square|0",
        b'{"cells": [{"cell_type": "code", "source": "def square(x):\\n    return \'\\ud800\'"}], "nbformat": 4}',
    ),
    "many.py": ("more than 5000 statements", b"".join(b"a%d = a%d\n" % (i + 1, i) for i in range(10**4))),
    "chain.py": (
        "RecursionError|NameError|not defined",
        b"".join(b"a%d = a%d\n" % (i + 1, i) for i in range(4900)) + b"square = a4900\n",
    ),
    "long.py": ("characters", b"# " + b"x" * (2**20 + 1)),
}
# names that a page, a table, a shell or a disk could take for something else
NAMES = [
    "<script>alert(1)<", "=cmd|' C'!A0", "a..b", "-rf", "$(touch x)", "a\nb", "‮gnp.exe", "x" * 200, "naïve", "con", "a'b\"c",
    "\x1b[31mred", "@SUM(1+1)",
]  # fmt: skip
