// SPDX-License-Identifier: Apache-2.0

/*
Package confine takes from a process what it needs no more, for good and in all of
its threads, so that whoever takes it over by what arrives from the network has got
little: [Capabilities], and system calls ([Calls]).

# Refused calls

A seccomp filter answers EPERM to what no director does once it serves: run a program
or begin a process, signal or trace another one, make memory executable, change mounts,
namespaces, modules, keys, the clock, open sockets of other families, use io_uring,
user-fault handlers or performance counters, load programs into it. A program that is run for a check gets the
part of it that no check needs either ([Programs]).

It is a list of what is refused, and not of what is allowed, since what remains is
bounded anyway and an allow list is wrong on the day when something harmless is new: the
runtime, a library or a kernel takes another call for the same thing, on a path that no
test went (what memory gets short, what a crash prints), and the director ends for it, or
works no more. The daemons that keep such lists tell of it release after release. What
matters is known by name. Four measures keep the list from being leaky:

  - calls with a number that was unknown when this was built do not exist (ENOSYS): this
    program makes none, and others go on as on an older kernel;
  - nor do those of other instruction sets of the same processor, and what has its
    arguments in memory, where a filter cannot look at them (clone3);
  - of calls that are needed, the dangerous arguments are refused;
  - EPERM and not the end: an operator prefers a line in the log to a dead director, and
    the kernel's log has one for each refused call of a director (SECCOMP_FILTER_FLAG_LOG).

What reads and sends packets is decided by its number alone, which the kernel (5.11 and
later) finds out once and keeps in a bitmap, so that the filter is not even run; before
that it is a search in eight steps. What is left is that the kernel looks there: 40 ns on
a call of 460, which reads or sends a batch.

Files are not looked at: a director without capabilities still reaches those of its user,
which should not be root's. That is what DynamicUser is for in vsnat.service.

Nothing has to be configured: a debugger or strace that looks at a director makes its
calls itself.

# Where it cannot be had

A kernel or a container without filters is told of, and served all the same. (The filter
of a service manager has to allow seccomp itself, see vsnat.service.) So is a
binary that was built with cgo, whose threads are not Go's alone. Filters are known for
amd64 and arm64.
*/
package confine
