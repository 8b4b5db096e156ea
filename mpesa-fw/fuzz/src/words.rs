//! Mutations of a text by lines and words: what a hand that slips, or an attacker with a sense of YAML, would do.

const WORDS: [&str; 40] = [
    "any",
    "drop",
    "pass",
    "tcp",
    "udp",
    "icmp",
    "icmpv6",
    "sctp",
    "47",
    "6",
    "0",
    "1",
    "443",
    "65535",
    "65536",
    "1-65535",
    "9000-9010",
    "10.0.0.0/8",
    "10.0.0.1/8",
    "10.0.0.1",
    "0.0.0.0/0",
    "255.255.255.255/32",
    "::/0",
    "2c0f::/16",
    "fd00::1",
    "::ffff:10.0.0.1",
    "one.example",
    "echo-request",
    "20/s",
    "1/h",
    "source",
    "service",
    "admins",
    "safaricom",
    "enforce",
    "observe",
    "[]",
    "{}",
    "''",
    "~",
];

/// One change, or a few.
pub fn mutated(text: &[u8], seed: u32) -> Vec<u8> {
    let mut chance = Chance(u64::from(seed) | 1 << 40);
    let mut lines: Vec<Vec<u8>> = text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for _ in 0..=chance.below(3) {
        if lines.is_empty() {
            lines.push(b"version: 1\n".to_vec());
        }
        let (at, other) = (chance.below(lines.len()), chance.below(lines.len()));
        match chance.below(9) {
            0 => lines.swap(at, other),
            1 => lines.insert(at, lines[other].clone()),
            2 => _ = lines.remove(at),
            3 => lines[at].insert(0, b' '),
            4 => _ = (lines[at].first() == Some(&b' ')).then(|| lines[at].remove(0)),
            5 | 6 => exchange_word(&mut lines[at], WORDS[chance.below(WORDS.len())].as_bytes(), &mut chance),
            7 => {
                let words = words(&lines[other]);
                if !words.is_empty() {
                    let (from, to) = words[chance.below(words.len())];
                    let word = lines[other][from..to].to_vec();
                    exchange_word(&mut lines[at], &word, &mut chance);
                }
            }
            _ => add_word(&mut lines[at], WORDS[chance.below(WORDS.len())], &mut chance),
        }
    }
    lines.concat()
}

fn exchange_word(line: &mut Vec<u8>, word: &[u8], chance: &mut Chance) {
    let words = words(line);
    if !words.is_empty() {
        let (from, to) = words[chance.below(words.len())];
        line.splice(from..to, word.iter().copied());
    }
}

/// Into a list, if there is one.
fn add_word(line: &mut Vec<u8>, word: &str, chance: &mut Chance) {
    let ends: Vec<usize> = (0..line.len()).filter(|n| line[*n] == b']').collect();
    if !ends.is_empty() {
        let at = ends[chance.below(ends.len())];
        line.splice(at..at, format!(", {word}").into_bytes());
    }
}

fn words(line: &[u8]) -> Vec<(usize, usize)> {
    let mut words = Vec::new();
    let mut from = 0;
    for (at, byte) in line.iter().chain(b"\n").enumerate() {
        if b" ,[]{}\n\"'".contains(byte) {
            if at > from {
                words.push((from, at));
            }
            from = at + 1;
        }
    }
    words
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}
