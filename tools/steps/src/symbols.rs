//! Addresses of a program's file, resolved through its debug information; each address once.

use crate::layer::{Frame, Spot, judge, judge_symbol};
use addr2line::{Loader, demangle_auto};
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

/// The debug information of one program.
pub struct Symbols {
    loader: Loader,
    known: HashMap<u64, Rc<Spot>>,
}

impl Symbols {
    /// Reads a program.
    ///
    /// # Errors
    /// What could not be read, in words.
    pub fn of(program: &Path) -> Result<Self, String> {
        let loader = Loader::new(program).map_err(|e| format!("{}: {e}", program.display()))?;
        let known = HashMap::new();
        Ok(Self { loader, known })
    }

    /// What this address of the file (not of the memory) belongs to.
    pub fn spot(&mut self, address: u64) -> Rc<Spot> {
        if let Some(spot) = self.known.get(&address) {
            return Rc::clone(spot);
        }
        let frames = self.frames(address);
        let spot = match frames.is_empty() {
            true => judge_symbol(&self.symbol(address)),
            false => judge(&frames),
        };
        let spot = Rc::new(spot);
        self.known.insert(address, Rc::clone(&spot));
        spot
    }

    /// The functions that were inlined into each other there, the innermost first.
    fn frames(&self, address: u64) -> Vec<Frame> {
        let mut frames = Vec::new();
        let Ok(mut found) = self.loader.find_frames(address) else {
            return frames;
        };
        while let Ok(Some(frame)) = found.next() {
            let function = frame.function.as_ref();
            let name = function.and_then(|f| f.demangle().ok());
            let location = frame.location.as_ref();
            frames.push(Frame {
                function: name.map_or_else(|| self.symbol(address), |name| name.into_owned()),
                file: location.and_then(|l| l.file).unwrap_or_default().into(),
                line: location.and_then(|l| l.line).unwrap_or(0),
            });
        }
        frames
    }

    fn symbol(&self, address: u64) -> String {
        let name = self.loader.find_symbol(address).unwrap_or("?");
        demangle_auto(name.into(), None).into_owned()
    }
}
