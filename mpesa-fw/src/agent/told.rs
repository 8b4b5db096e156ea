//! What the kernel tells of one packet or attempt, as it lies in the ring buffer.

use mpesa_fw_common::{
    event::{Event, Occasion},
    program::{Program, SocketKind},
};
use zerocopy::FromBytes as _;

/// One event.
pub(super) struct Told<'b> {
    pub(super) event: Event,
    /// Who sent, or was to connect; none: a packet from outside, or of nobody here.
    pub(super) program: Option<Program>,
    /// The beginning of the frame; empty: nobody captures.
    pub(super) frame: &'b [u8],
}

impl<'b> Told<'b> {
    /// Of an event alone, of one with its program, or of one with its program and frame. None: the bytes are too few.
    pub(super) fn read(bytes: &'b [u8]) -> Option<Self> {
        let (event, rest) = Event::read_from_prefix(bytes).ok()?;
        let (program, frame) = match Program::read_from_prefix(rest) {
            Ok((program, frame)) => (Some(program), frame),
            Err(_) if rest.is_empty() => (None, rest),
            Err(_) => return None,
        };
        let frame = frame.get(..usize::from(event.captured))?;
        Some(Self {
            event,
            program: program.filter(|program| program.socket != SocketKind::Nobody as u32),
            frame,
        })
    }

    /// Whether a program here wanted it; else others caused it, also what the kernel answers on a program's behalf.
    pub(super) fn is_wanted_here(&self) -> bool {
        self.program.is_some_and(|program| program.socket == SocketKind::Own as u32)
    }

    /// Whether it is of an attempt, not of a packet.
    pub(super) const fn is_attempt(&self) -> bool {
        self.event.occasion == Occasion::Attempt as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpesa_fw_common::event::{CAPTURE_BYTES, CapturedEvent, ProgramEvent};
    use zerocopy::{FromZeros as _, IntoBytes as _};

    #[test]
    fn each_shape_is_told_by_its_length() {
        let alone = Event { target_port: 443, ..Event::new_zeroed() };
        let told = Told::read(alone.as_bytes()).unwrap();
        assert!(told.event == alone && told.program.is_none() && told.frame.is_empty());

        let socket = SocketKind::Own as u32;
        let program = Program { cookie: 7, uid: 1000, socket, ..Program::NONE };
        let with_program = ProgramEvent { event: alone, program };
        let told = Told::read(with_program.as_bytes()).unwrap();
        assert!(told.program == Some(program) && told.frame.is_empty() && !told.is_attempt());
        assert!(told.is_wanted_here());
        let of_nobody = ProgramEvent { event: alone, program: Program { uid: 65534, ..Program::NONE } };
        assert!(Told::read(of_nobody.as_bytes()).unwrap().program.is_none());

        let event = Event { captured: 60, occasion: Occasion::Attempt as u8, ..alone };
        let captured = CapturedEvent { event, program, bytes: [9; CAPTURE_BYTES] };
        let told = Told::read(captured.as_bytes()).unwrap();
        assert!(told.program == Some(program) && told.frame == [9; 60] && told.is_attempt());
    }

    #[test]
    fn what_is_too_short_is_nothing() {
        let event = Event { captured: 60, ..Event::new_zeroed() };
        assert!(Told::read(&event.as_bytes()[..20]).is_none());
        assert!(Told::read(event.as_bytes()).is_none(), "it says that a frame follows");
        let cut = ProgramEvent { event: Event::new_zeroed(), program: Program::NONE };
        assert!(Told::read(&cut.as_bytes()[..80]).is_none());
    }
}
