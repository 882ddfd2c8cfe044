//! What the kernel saw of a thread at a system call.

/// The process that a sample is of. A process id alone may be another process's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// The process id (tgid) as the tracer's pid namespace has it.
    pub pid: u32,
    /// Nanoseconds from boot to its start: `group_leader->start_boottime`. 0 if it is not known.
    pub start_ns: u64,
    /// `mm->start_stack`: another after each exec where addresses are randomized. 0 if it is not
    /// known: then an exec between the sample and its lookup is seen only by addresses that do not fit.
    pub start_stack: u64,
}

/// The registers of x86-64 that a caller may rely on, at the entry of a system call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Regs {
    /// The instruction after the system call.
    pub ip: u64,
    /// The stack pointer.
    pub sp: u64,
    /// The frame pointer, where code keeps one.
    pub bp: u64,
    /// `rbx`.
    pub bx: u64,
    /// `r12`.
    pub r12: u64,
    /// `r13`.
    pub r13: u64,
    /// `r14`.
    pub r14: u64,
    /// `r15`.
    pub r15: u64,
}

/// A thread at a system call: its registers, and the stack from `regs.sp` upward.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Of which process.
    pub process: Process,
    /// Its user registers.
    pub regs: Regs,
    /// A copy of the stack from `regs.sp` upward; it may end anywhere.
    pub stack: &'a [u8],
}

/// A thread at a system call of which only the chain of its frame pointers was followed.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a> {
    /// Of which process.
    pub process: Process,
    /// The instruction after the system call, and then the return addresses.
    pub addresses: &'a [u64],
}
