"""Linux on i386: numbers from arch/x86/entry/syscalls/syscall_32.tbl (Linux 6.1).

The number is in EAX, arguments in EBX, ECX, EDX, ESI, EDI, EBP; INT 80h enters.
"""

from __future__ import annotations

from iovirt_dist.abi import layouts
from iovirt_dist.abi.linux_signatures import Signature, build_calls, parse_names, signatures
from iovirt_dist.abi.table import Abi, buffer_in, buffer_in_out, buffer_out, fd, value

LAYOUTS = layouts.I386
TLS_ENTRY = 6
"""Entry of the GDT that set_thread_area hands out (Linux GDT_ENTRY_TLS_MIN on i386); its selector is 33h."""

NAMES = parse_names("""\
0: restart_syscall exit fork read write open close waitpid creat link unlink execve chdir time mknod chmod lchown
17: break oldstat lseek getpid mount umount setuid getuid stime ptrace alarm oldfstat pause utime stty gtty access
34: nice ftime sync kill rename mkdir rmdir dup pipe times prof brk setgid getgid signal geteuid getegid acct
52: umount2 lock ioctl fcntl mpx setpgid ulimit oldolduname umask chroot ustat dup2 getppid getpgrp setsid sigaction
68: sgetmask ssetmask setreuid setregid sigsuspend sigpending sethostname setrlimit getrlimit getrusage gettimeofday
79: settimeofday getgroups setgroups select symlink oldlstat readlink uselib swapon reboot readdir mmap munmap
92: truncate ftruncate fchmod fchown getpriority setpriority profil statfs fstatfs ioperm socketcall syslog
104: setitimer getitimer stat lstat fstat olduname iopl vhangup idle vm86old wait4 swapoff sysinfo ipc fsync
119: sigreturn clone setdomainname uname modify_ldt adjtimex mprotect sigprocmask create_module init_module
129: delete_module get_kernel_syms quotactl getpgid fchdir bdflush sysfs personality afs_syscall setfsuid setfsgid
140: _llseek getdents _newselect flock msync readv writev getsid fdatasync _sysctl mlock munlock mlockall munlockall
154: sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_yield sched_get_priority_max
160: sched_get_priority_min sched_rr_get_interval nanosleep mremap setresuid getresuid vm86 query_module poll
169: nfsservctl setresgid getresgid prctl rt_sigreturn rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait
178: rt_sigqueueinfo rt_sigsuspend pread64 pwrite64 chown getcwd capget capset sigaltstack sendfile getpmsg putpmsg
190: vfork ugetrlimit mmap2 truncate64 ftruncate64 stat64 lstat64 fstat64 lchown32 getuid32 getgid32 geteuid32
202: getegid32 setreuid32 setregid32 getgroups32 setgroups32 fchown32 setresuid32 getresuid32 setresgid32
211: getresgid32 chown32 setuid32 setgid32 setfsuid32 setfsgid32 pivot_root mincore madvise getdents64 fcntl64
224: gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
235: removexattr lremovexattr fremovexattr tkill sendfile64 futex sched_setaffinity sched_getaffinity
243: set_thread_area get_thread_area io_setup io_destroy io_getevents io_submit io_cancel fadvise64
252: exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages set_tid_address timer_create
260: timer_settime timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime clock_getres
267: clock_nanosleep statfs64 fstatfs64 tgkill utimes fadvise64_64 vserver mbind get_mempolicy set_mempolicy mq_open
278: mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr kexec_load waitid
286: add_key request_key keyctl ioprio_set ioprio_get inotify_init inotify_add_watch inotify_rm_watch migrate_pages
295: openat mkdirat mknodat fchownat futimesat fstatat64 unlinkat renameat linkat symlinkat readlinkat fchmodat
307: faccessat pselect6 ppoll unshare set_robust_list get_robust_list splice sync_file_range tee vmsplice move_pages
318: getcpu epoll_pwait utimensat signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime
327: signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open
337: recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs
345: sendmmsg setns process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2
354: seccomp getrandom memfd_create bpf execveat socket socketpair bind connect listen accept4 getsockopt setsockopt
367: getsockname getpeername sendto sendmsg recvfrom recvmsg shutdown userfaultfd membarrier mlock2 copy_file_range
378: preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx arch_prctl io_pgetevents rseq
393: semget semctl shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl clock_gettime64 clock_settime64
405: clock_adjtime64 clock_getres_time64 clock_nanosleep_time64 timer_gettime64 timer_settime64 timerfd_gettime64
411: timerfd_settime64 utimensat_time64 pselect6_time64 ppoll_time64
416: io_pgetevents_time64 recvmmsg_time64 mq_timedsend_time64 mq_timedreceive_time64 semtimedop_time64
421: rt_sigtimedwait_time64 futex_time64 sched_rr_get_interval_time64 pidfd_send_signal io_uring_setup
426: io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick pidfd_open clone3
436: close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr quotactl_fd
444: landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv
450: set_mempolicy_home_node
""")

_COMMON = signatures(LAYOUTS)
_FD_SETS = _COMMON.pop("select").arguments[1:4]  # the old select takes a structure of pointers: not declared

_OWN = {
    "mmap": Signature((buffer_in("arguments", 24),)),
    "mmap2": Signature((*_COMMON["mmap"].arguments[:4], fd(), value("page_offset"))),
    "_newselect": Signature((value("nfds"), *_FD_SETS, buffer_in("timeval", LAYOUTS.timeval.size))),
    "ppoll": Signature((*_COMMON["ppoll"].arguments[:2], buffer_in("timespec", LAYOUTS.timespec.size))),
    "pselect6": Signature((value("nfds"), *_FD_SETS, buffer_in("timespec", LAYOUTS.timespec.size))),
    "ppoll_time64": _COMMON["ppoll"],
    "pselect6_time64": _COMMON["pselect6"],
    "ugetrlimit": Signature((value("resource"), buffer_out("old", LAYOUTS.rlimit.size))),
    "futex_time64": _COMMON["futex"],
    "set_thread_area": Signature((buffer_in_out("descriptor", layouts.USER_DESCRIPTOR.size),)),
}

_CALLS, _OTHERS = build_calls(NAMES, _COMMON | _OWN)

ABI = Abi("linux_i386", word_bytes=4, machine=3, user_end=0xC000_0000, calls=_CALLS, names=_OTHERS)
