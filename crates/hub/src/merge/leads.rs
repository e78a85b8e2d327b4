//! Which of many belong together, found out pair by pair.

/// For each of some numbers one that it belongs together with; itself for the smallest of them.
#[derive(Debug, Default)]
pub(super) struct Leads(Vec<u32>);

impl Leads {
    /// Of the numbers below `count`, at most `u32::MAX`, each alone.
    pub(super) fn of(count: usize) -> Leads {
        Leads((0..count as u32).collect())
    }

    /// How many numbers there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// One number more, alone.
    pub(super) fn add(&mut self) {
        self.0.push(self.0.len() as u32);
    }

    /// These two belong together, and so does whatever belongs together with one of them.
    pub(super) fn join(&mut self, one: usize, two: usize) {
        let (one, two) = (self.lead(one), self.lead(two));
        self.0[one.max(two)] = one.min(two) as u32;
    }

    /// The smallest number of those that one belongs together with.
    pub(super) fn lead(&mut self, number: usize) -> usize {
        let leads = &mut self.0;
        let mut at = number;
        while leads[at] as usize != at {
            leads[at] = leads[leads[at] as usize];
            at = leads[at] as usize;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::Leads;

    #[test]
    fn the_smallest_number_leads_whatever_the_order() {
        let mut leads = Leads::of(5);
        leads.add();
        for (one, two) in [(4, 3), (5, 1), (3, 1)] {
            leads.join(one, two);
        }
        let found: Vec<usize> = (0..leads.len()).map(|at| leads.lead(at)).collect();
        assert_eq!(found, [0, 1, 2, 1, 1, 1]);
    }
}
