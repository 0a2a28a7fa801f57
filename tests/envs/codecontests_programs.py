"""Programs of our own that solve problems of the CodeContests sample.

Keys begin the problems' names.
"""

from __future__ import annotations

_DIVISORS = '''
def divisors(n):
    small = [d for d in range(1, int(n ** 0.5) + 2) if d * d <= n and n % d == 0]
    return sorted(set(small + [n // d for d in small]))
def primes(n):
    found, p = {}, 2
    while p * p <= n:
        while n % p == 0:
            found[p] = found.get(p, 0) + 1
            n //= p
        p += 1
    if n > 1:
        found[n] = found.get(n, 0) + 1
    return found
'''

SOLUTIONS = {
    '1343_A.': '''
for _ in range(int(input())):
    n, k = int(input()), 2
    while n % (2 ** k - 1):
        k += 1
    print(n // (2 ** k - 1))
''',
    '1374_B.': '''
for _ in range(int(input())):
    n, a, b = int(input()), 0, 0
    while n % 3 == 0:
        n //= 3
        a += 1
    while n % 2 == 0:
        n //= 2
        b += 1
    print(2 * a - b if n == 1 and a >= b else -1)
''',
    '1362_A.': '''
for _ in range(int(input())):
    a, b = sorted(map(int, input().split()))
    q, r = divmod(b, a)
    ok = r == 0 and q & (q - 1) == 0
    print((q.bit_length() + 1) // 3 if ok else -1)
''',
    '1360_D.': _DIVISORS + '''
for _ in range(int(input())):
    n, k = map(int, input().split())
    print(min(n // d for d in divisors(n) if d <= k))
''',
    '1228_C.': _DIVISORS + '''
x, n = map(int, input().split())
answer, mod = 1, 10 ** 9 + 7
for p in primes(x):
    e, q = 0, n
    while q:
        q //= p
        e += q
    answer = answer * pow(p, e, mod) % mod
print(answer)
''',
    '762_A.': '''
n, k = map(int, input().split())
small, d = [], 1
while d * d <= n:
    if n % d == 0:
        small.append(d)
    d += 1
found = small + [n // d for d in reversed(small) if d * d != n]
print(found[k - 1] if k <= len(found) else -1)
''',
    '514_B.': '''
from math import gcd
n, x, y = map(int, input().split())
lines = set()
for _ in range(n):
    a, b = map(int, input().split())
    a, b = a - x, b - y
    g = gcd(a, b)
    a, b = a // g, b // g
    lines.add(max((a, b), (-a, -b)))
print(len(lines))
''',
    '1242_A.': _DIVISORS + '''
found = list(primes(int(input())))
print(found[0] if len(found) == 1 else 1)
''',
    '1294_C.': '''
def least(n, start):
    d = start
    while d * d <= n:
        if n % d == 0:
            return d
        d += 1
    return n
for _ in range(int(input())):
    n = int(input())
    a = least(n, 2)
    b = least(n // a, a + 1)
    c = n // a // b
    good = a * b * c == n and 1 < a < b < c
    print(f'YES\\n{a} {b} {c}' if good else 'NO')
''',
    '1068_B.': _DIVISORS + 'print(len(divisors(int(input()))))\n',
    '1076_B.': '''
n, p = int(input()), 2
while p * p <= n and n % p:
    p += 1
if p * p > n:
    p = n
print(n // 2 if n % 2 == 0 else 1 + (n - p) // 2)
''',
    '1444_A.': _DIVISORS + '''
for _ in range(int(input())):
    p, q = map(int, input().split())
    best = p if p % q else 0
    for f in primes(q) if not best else ():
        x = p
        while x % q == 0:
            x //= f
        best = max(best, x)
    print(best)
''',
    '1454_D.': _DIVISORS + '''
for _ in range(int(input())):
    n = int(input())
    p, k = max(primes(n).items(), key=lambda item: item[1])
    print(k)
    print(*[p] * (k - 1), n // p ** (k - 1))
''',
    '165_A.': '''
points = [tuple(map(int, input().split())) for _ in range(int(input()))]
count = 0
for x, y in points:
    sides = {
        ((a > x) - (a < x), (b > y) - (b < y))
        for a, b in points if (a == x) != (b == y)
    }
    count += len(sides) == 4
print(count)
''',
    '371_B.': '''
def strip(n):
    count = {}
    for p in (2, 3, 5):
        count[p] = 0
        while n % p == 0:
            n //= p
            count[p] += 1
    return n, count
(a, first), (b, second) = map(strip, map(int, input().split()))
print(sum(abs(first[p] - second[p]) for p in first) if a == b else -1)
''',
    '498_A.': '''
x, y = map(int, input().split())
u, v = map(int, input().split())
count = 0
for _ in range(int(input())):
    a, b, c = map(int, input().split())
    count += (a * x + b * y + c > 0) != (a * u + b * v + c > 0)
print(count)
''',
    '913_B.': '''
n = int(input())
parent = [0, 0] + [int(input()) for _ in range(n - 1)]
inner = set(parent[2:])
leaves = [parent[v] for v in range(2, n + 1) if v not in inner]
print('Yes' if all(leaves.count(v) >= 3 for v in inner) else 'No')
''',
    '217_A.': '''
points = [tuple(map(int, input().split())) for _ in range(int(input()))]
group = list(range(len(points)))
for i, (a, b) in enumerate(points):
    for j, (c, d) in enumerate(points):
        if (a == c or b == d) and group[i] != group[j]:
            old, new = group[i], group[j]
            group = [new if g == old else g for g in group]
print(len(set(group)) - 1)
''',
    '1295_D.': _DIVISORS + '''
from math import gcd
for _ in range(int(input())):
    a, m = map(int, input().split())
    n = m // gcd(a, m)
    for p in primes(n):
        n = n // p * (p - 1)
    print(n)
''',
    '1249_B1.': '''
for _ in range(int(input())):
    n = int(input())
    to = [int(x) - 1 for x in input().split()]
    answer = []
    for i in range(n):
        j, days = to[i], 1
        while j != i:
            j, days = to[j], days + 1
        answer.append(days)
    print(*answer)
''',
    '126_B.': '''
s = input().strip()
border = [0] * len(s)
for i in range(1, len(s)):
    k = border[i - 1]
    while k and s[i] != s[k]:
        k = border[k - 1]
    border[i] = k + (s[i] == s[k])
k = border[-1]
if k and k not in border[:-1]:
    k = border[k - 1]
print(s[:k] or 'Just a legend')
''',
    '580_C.': '''
import sys
data = list(map(int, sys.stdin.read().split()))
n, m, cats = data[0], data[1], [0] + data[2:2 + data[0]]
edges = [[] for _ in range(n + 1)]
for a, b in zip(data[2 + n::2], data[3 + n::2]):
    edges[a].append(b)
    edges[b].append(a)
stack, count = [(1, 0, cats[1])], 0
while stack:
    v, up, run = stack.pop()
    if run > m:
        continue
    down = [w for w in edges[v] if w != up]
    count += not down
    stack += [(w, v, (run + 1) * cats[w]) for w in down]
print(count)
''',
    '1143_C.': '''
n = int(input())
rows = [tuple(map(int, input().split())) for _ in range(n)]
keep = {p for p, c in rows if not c}
found = [i for i, (_, c) in enumerate(rows, 1) if c and i not in keep]
print(*(found or [-1]))
''',
    '1141_A.': '''
n, m = map(int, input().split())
q, r = divmod(m, n)
count = 0
for p in (2, 3):
    while q % p == 0:
        q //= p
        count += 1
print(count if r == 0 and q == 1 else -1)
''',
}  # fmt: skip
