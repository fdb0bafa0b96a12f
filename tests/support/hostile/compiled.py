"""C++: what a compiled program prints, and what compiles at all."""

_UNISTD = "#include <unistd.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
CPP = {
    "nothing": "int main() {}",
    "loop": "int main() { volatile int x = 0; for (;;) ++x; }",
    "sleep": _UNISTD + "int main() { sleep(1000); }",
    "fork bomb": _UNISTD + "int main() { for (;;) fork(); }",
    "fork once": _UNISTD + 'int main() { if (fork() == 0) for (;;); puts("claim"); }',
    "vfork": _UNISTD + "int main() { return vfork() < 0; }",
    "threads": (
        "#include <thread>\n"
        "#include <vector>\n"
        "int main() { std::vector<std::thread> t; for (int i = 0; i < 10000; "
        "i++) t.emplace_back([] { for (;;); }); }"
    ),
    "memory": (
        _UNISTD + "int main() { for (;;) { char *p = (char *)malloc(1 << 20); "
        "if (p) memset(p, 1, 1 << 20); } }"
    ),
    "memory mapped": (
        "#include <sys/mman.h>\n"
        "int main() { for (;;) mmap(0, 1 << 30, 3, MAP_PRIVATE | MAP_ANONYMOUS | "
        "MAP_POPULATE, -1, 0); }"
    ),
    "stack": (
        "int f(int n) { volatile char c[10000]; c[0] = n; return f(n + 1) + c[0]; }\n"
        "int main() { return f(0); }"
    ),
    "null": "int main() { *(volatile int *)0 = 1; }",
    "abort": _UNISTD + "int main() { abort(); }",
    "exit": _UNISTD + "int main() { _exit(0); }",
    "flood": _UNISTD + 'int main() { for (;;) puts("x"); }',
    "flood of errors": _UNISTD + 'int main() { for (;;) fputs("xxxxxxxxxxxxxxxxx", stderr); }',
    "ignore signals": (
        "#include <signal.h>\n"
        "int main() { for (int i = 1; i < 65; i++) signal(i, SIG_IGN); for (;;); }"
    ),
    "kill": (
        "#include <signal.h>\n"
        "#include <unistd.h>\n"
        "int main() { kill(getppid(), 9); kill(getppid(), 19); kill(-1, 9); kill(1, 9); }"
    ),
    "ptrace": (
        "#include <sys/ptrace.h>\n"
        "#include <unistd.h>\n"
        "#include <stdio.h>\n"
        "int main() { if (ptrace(PTRACE_ATTACH, getppid(), 0, 0) == 0) "
        'puts("hidden-4137-answer"); }'
    ),
    "network": (
        "#include <sys/socket.h>\n"
        "#include <stdio.h>\n"
        "int main() { if (socket(AF_INET, SOCK_STREAM, 0) >= 0 || socket(AF_UNIX, "
        'SOCK_STREAM, 0) >= 0) puts("hidden-4137-answer"); }'
    ),
    "exec a shell": (
        _UNISTD
        + 'int main() { execl("/bin/sh", "sh", "-c", "echo hidden-4137-answer", (char *)0); }'
    ),
    "exec itself": (
        _UNISTD + 'int main(int n, char **a) { execl("/proc/self/exe", "x", (char *)0); '
        'for (int fd = 0; fd < 1024; fd++) { char p[32]; sprintf(p, "/proc/self/fd/%d", fd); '
        "execl(p, p, (char *)0); } }"
    ),
    "exec by descriptor": (
        "#define _GNU_SOURCE\n"
        "#include <unistd.h>\n"
        "#include <fcntl.h>\n"
        "#include <stdio.h>\n"
        "#include <sys/syscall.h>\n"
        'int main() { int fd = open("/bin/echo", O_RDONLY); dup2(fd, 900); '
        'char *a[] = {(char *)"echo", (char *)"hidden-4137-answer", 0}, *e[] = {0}; '
        'for (int i = 0; i < 1024; i++) syscall(SYS_execveat, i, "", a, e, 0x1000); }'
    ),
    "exec by a path": (
        "#include <unistd.h>\n"
        "#include <sys/syscall.h>\n"
        'int main() { char *a[] = {(char *)"echo", (char *)"hidden-4137-answer", 0}, *e[] = '
        '{0}; const char *p[] = {"/bin/echo", "/usr/bin/echo", "../bin/echo"}; '
        "for (auto q : p) for (int f = 0; f <= 0x1000; "
        "f += 0x1000) syscall(SYS_execveat, 900, q, a, e, f); }"
    ),
    "exec its own file": (
        _UNISTD + "#include <fcntl.h>\n"
        "#include <sys/stat.h>\n"
        "#include <sys/syscall.h>\n"
        'int main() { int i = open("/bin/echo", O_RDONLY), o = open("x", O_WRONLY | O_CREAT, '
        "0755); static char b[1 << 20]; if (write(o, b, read(i, b, sizeof b)) < 1) return 1; "
        'close(o); char *a[] = {(char *)"echo", (char *)"hidden-4137-answer", 0}, *e[] = {0};'
        ' syscall(SYS_execveat, 900, "/tmp/x", a, e, 0); char p[200]; if (getcwd(p, 190)) { '
        'strcat(p, "/x"); syscall(SYS_execveat, 900, p, a, e, 0); } }'
    ),
    "system": _UNISTD + 'int main() { if (system("true") == 0) puts("hidden-4137-answer"); }',
    "files": (
        _UNISTD
        + 'int main() { const char *p[] = {"/etc/passwd", "/etc/shadow", "/proc/self/environ", '
        '"/proc/1/cmdline", "/root/.bashrc"}; '
        'for (auto q : p) if (fopen(q, "r")) puts("hidden-4137-answer"); }'
    ),
    "leave files": (
        _UNISTD
        + 'int main() { const char *p[] = {"/dev/shm/linn-hostile", "/var/tmp/linn-hostile", '
        '"/run/linn-hostile", "/usr/linn-hostile"}; '
        'for (auto q : p) if (fopen(q, "w")) puts("hidden-4137-answer"); }'
    ),
    "fill the disk": (
        _UNISTD
        + "int main() { char n[20]; static char b[1 << 20]; for (int i = 0; i < 100000; i++) { "
        'sprintf(n, "%d", i); FILE *f = fopen(n, "w"); if (f) { fwrite(b, 1, sizeof b, f); '
        "fclose(f); } } }"
    ),
    "descriptors": (
        "#include <unistd.h>\n"
        "#include <stdio.h>\n"
        "#include <sys/stat.h>\n"
        "int main() { struct stat s; for (int fd = 3; fd < 1024; "
        'fd++) if (fstat(fd, &s) == 0) puts("hidden-4137-answer"); }'
    ),
    "environment": (
        "#include <stdio.h>\n"
        "extern char **environ;\n"
        'int main(int n, char **a) { if (n != 1 || *environ) puts("hidden-4137-answer"); }'
    ),
    "own memory": (
        "#include <stdio.h>\n"
        "#include <string.h>\n"
        "#include <stdlib.h>\n"
        'int main() { FILE *f = fopen("/proc/self/maps", "r"); char l[500]; '
        "while (f && fgets(l, 500, f)) { unsigned long a, b; char r; "
        'if (sscanf(l, "%lx-%lx %c", &a, &b, &r) == 3 && r == \'r\' && !strstr(l, "vvar") && '
        '!strstr(l, "vsyscall")) for (char *p = (char *)a; p + 18 < (char *)b; '
        'p++) if (!memcmp(p, "hidden-", 7) && !memcmp(p + 11, "-answer", 7)) '
        'printf("%.18s\\n", p); } }'
    ),
    "before main": (
        _UNISTD + 'struct A { A() { puts("claim"); _exit(0); } } a;\nint main() { return 1; }'
    ),
    "shared memory": (
        "#include <sys/shm.h>\n"
        "#include <stdio.h>\n"
        "int main() { if (shmget(77, 1 << 20, IPC_CREAT | 0666) >= 0) "
        'puts("hidden-4137-answer"); }'
    ),
    "namespaces": (
        "#include <sched.h>\n"
        "#include <stdio.h>\n"
        'int main() { if (unshare(CLONE_NEWUSER) == 0) puts("hidden-4137-answer"); }'
    ),
}

COMPILE_BOMBS = {
    "templates": (
        "template <int N> struct A { typedef typename A<N + 1>::T T; };\n"
        "typedef A<0>::T X;\n"
        "int main() {}"
    ),
    "template tree": (
        "template <int N, int M> struct A { static const int v = A<N - 1, 2 * M>::v + A<N - "
        "1, 2 * M + 1>::v; };\n"
        "template <int M> struct A<0, M> { static const int v = 1; };\n"
        "int main() { return A<28, 0>::v; }"
    ),
    "macros": (
        "#define A(x) x x x x x x x x x x\n"
        "#define B(x) A(A(A(A(x))))\n"
        "#define C(x) B(B(B(x)))\n"
        "int main() { int y = 0; C(y++;) }"
    ),
    "includes itself": "#include __FILE__\n#include __FILE__\nint main() {}",
    "an endless file": '#include "/dev/zero"\nint main() {}',
    "random bytes": '#include "/dev/urandom"\nint main() {}',
    "users": '#include "/etc/passwd"\nint main() {}',
    "its own command": '#include "/proc/self/cmdline"\nint main() {}',
    "huge array": "char a[1ull << 34] = {1};\nint main() { return a[5]; }",
    "huge constant": (
        "#include <array>\n"
        "constexpr auto f() { std::array<int, 50000000> a{}; for (auto &x : a) x = 7; "
        "return a; }\n"
        "auto a = f();\n"
        "int main() { return a[3]; }"
    ),
    "constant loop": (
        "constexpr long f() { long s = 0; for (long i = 0; i < 1l << 40; i++) s += i; "
        "return s; }\n"
        "static_assert(f() > 0);\n"
        "int main() {}"
    ),
    "many errors": "int main() { " + "x; " * 20000 + "}",
    "deep brackets": "int main() { return " + "(" * 20000 + "1" + ")" * 20000 + "; }",
    "pragma": '#pragma GCC optimize("O3")\n#pragma GCC target("avx512f,nothing")\nint main() {}',
    "assembler repeats": 'asm(".rept 1000000000\\n nop\\n.endr");\nint main() {}',
    "includes a binary": 'asm(".incbin \\"/etc/shadow\\"");\nint main() {}',
    "carries a file": (
        'asm(".section .rodata\\n.globl blob\\nblob: .incbin \\"/etc/passwd\\"\\n.byte '
        '0\\n.previous");\n'
        "#include <stdio.h>\n"
        'extern "C" const char blob[];\n'
        "int main() { puts(blob); }"
    ),
    "no main": "int f() { return 1; }",
    "empty": "",
    "surrogates": "int main() { return \ud800; }",
    "response file": "// @/etc/passwd -o /tmp/x\n#error no",
}
