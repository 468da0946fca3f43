//! One end of a swrk socket, without a runtime: whole messages, with the descriptors that travel in them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};

use crate::criu::swrk::MAX_MESSAGE;

/// Descriptors in one message; CRIU sends one, the other end of a terminal.
const MAX_DESCRIPTORS: usize = 4;

/// A message and what came with it.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// A socket that keeps message borders.
#[derive(Debug)]
pub(super) struct Channel(pub(super) OwnedFd);

impl Channel {
    /// The next message without taking it; `None` at the end of the stream.
    pub(super) fn peek(&self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        wait(&[self.0.as_fd()], deadline)?;
        let mut bytes = vec![0; MAX_MESSAGE];
        let (_, length) = recv(&self.0, &mut bytes[..], RecvFlags::PEEK | RecvFlags::TRUNC)?;
        if length > bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        bytes.truncate(length);
        Ok((length > 0).then_some(bytes))
    }

    /// The next message; `None` at the end of the stream.
    pub(super) fn receive(&self, deadline: Instant) -> io::Result<Option<Packet>> {
        wait(&[self.0.as_fd()], deadline)?;
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        bytes.truncate(received.bytes);
        Ok((received.bytes > 0).then_some(Packet { bytes, descriptors }))
    }

    /// Passes a message on.
    pub(super) fn send(&self, packet: &Packet) -> io::Result<()> {
        let borrowed: Vec<BorrowedFd<'_>> = packet.descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(&self.0, &[IoSlice::new(&packet.bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl From<Vec<u8>> for Packet {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, descriptors: Vec::new() }
    }
}

/// Waits until one of them can be read (or is at its end) and tells which; the earlier ones first.
pub(super) fn wait(descriptors: &[BorrowedFd<'_>], deadline: Instant) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut polled: Vec<_> = descriptors.iter().map(|one| PollFd::new(one, PollFlags::IN)).collect();
        match poll(&mut polled, Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {
                let ready = polled.iter().position(|one| !one.revents().is_empty());
                return ready.ok_or_else(|| io::ErrorKind::TimedOut.into());
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
