//! Learns a WordPiece vocabulary from texts.

use lowrank::data::Normalizer;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};

/// The first tokens of BERT's vocabularies.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// The number of times that each word occurs in `texts`. Words are those of an uncased BERT.
pub fn count_words<'a>(texts: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let (mut counts, mut buffer) = (BTreeMap::new(), String::new());
    for text in texts {
        Normalizer::UNCASED.words(text, &mut buffer, &mut |word| {
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(counts.insert(word.to_string(), 1)),
            }
            true
        });
    }
    counts
}

/// Two neighbouring pieces.
type Pair = (usize, usize);

/// Words cut into pieces, and the words that each pair of neighbours occurs in.
struct Pieces {
    tokens: Vec<String>,
    /// Pieces and count of each word.
    words: Vec<(Vec<usize>, u64)>,
    counts: HashMap<Pair, u64>,
    /// The words that a pair occurs in, or once occurred in.
    places: HashMap<Pair, BTreeSet<usize>>,
}

/// A vocabulary of at most `size` tokens: the special tokens; every character, plain at the start of a word and with `##` inside one; then
/// pieces, each joined from the pair of neighbours that occurs most often at that time. Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>,
/// algorithm 1. Hugging Face's WordPiece trainer does the same; the WordPiece of Schuster & Nakajima 2012 joins by likelihood.
///
/// Words with characters that occur less than `rare` times are left out. The same counts give the same vocabulary.
pub fn learn_vocabulary(counts: &BTreeMap<String, u64>, size: usize, rare: u64) -> Vec<String> {
    let mut characters: BTreeMap<char, u64> = BTreeMap::new();
    counts.iter().for_each(|(word, n)| word.chars().for_each(|c| *characters.entry(c).or_default() += n));
    let common = |word: &&String| word.chars().all(|c| characters[&c] >= rare);
    let words: BTreeMap<&String, u64> = counts.iter().map(|(word, &n)| (word, n)).filter(|(word, _)| common(word)).collect();
    let mut pieces = Pieces::new(&words);
    // Most frequent pairs first; of equally frequent ones, the pair with the older tokens. An entry may be out of date, so its count is compared.
    let mut heap: BinaryHeap<(u64, Reverse<Pair>)> = pieces.counts.iter().map(|(&pair, &n)| (n, Reverse(pair))).collect();
    let mut known: HashSet<String> = pieces.tokens.iter().cloned().collect();
    while pieces.tokens.len() < size {
        let Some((n, Reverse(pair))) = heap.pop() else { break };
        let now = pieces.counts.get(&pair).copied().unwrap_or(0);
        if now != n {
            if now > 0 {
                heap.push((now, Reverse(pair)));
            }
            continue;
        }
        let joined = format!("{}{}", pieces.tokens[pair.0], pieces.tokens[pair.1].trim_start_matches("##"));
        // Two pairs can spell the same piece.
        let id = match known.insert(joined.clone()) {
            true => pieces.tokens.len(),
            false => pieces.tokens.iter().position(|t| *t == joined).unwrap_or(0),
        };
        if id == pieces.tokens.len() {
            pieces.tokens.push(joined);
        }
        for changed in pieces.join(pair, id) {
            heap.push((pieces.counts[&changed], Reverse(changed)));
        }
    }
    pieces.tokens.truncate(size);
    pieces.tokens
}

impl Pieces {
    fn new(counts: &BTreeMap<&String, u64>) -> Pieces {
        let spell = |word: &str| -> Vec<String> {
            word.chars().enumerate().map(|(i, c)| if i == 0 { c.to_string() } else { format!("##{c}") }).collect()
        };
        let alphabet: BTreeSet<String> = counts.keys().flat_map(|word| spell(word)).collect();
        let tokens: Vec<String> = SPECIAL.iter().map(|s| s.to_string()).chain(alphabet).collect();
        let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(i, t)| (t.as_str(), i)).collect();
        let words = counts.iter().map(|(word, &n)| (spell(word).iter().map(|s| ids[s.as_str()]).collect(), n)).collect();
        let mut pieces = Pieces { words, counts: HashMap::new(), places: HashMap::new(), tokens: tokens.clone() };
        (0..pieces.words.len()).for_each(|w| drop(pieces.enter(w)));
        pieces
    }

    /// Counts the pairs of word `w`, and returns them.
    fn enter(&mut self, w: usize) -> Vec<Pair> {
        let (word, n) = &self.words[w];
        let pairs: Vec<Pair> = word.windows(2).map(|p| (p[0], p[1])).collect();
        for &pair in &pairs {
            *self.counts.entry(pair).or_default() += n;
            self.places.entry(pair).or_default().insert(w);
        }
        pairs
    }

    /// Replaces `pair` by the piece `id` in all words. Returns the pairs of the changed words.
    fn join(&mut self, pair: Pair, id: usize) -> BTreeSet<Pair> {
        let mut changed = BTreeSet::new();
        for w in self.places.remove(&pair).unwrap_or_default() {
            let (word, n) = &mut self.words[w];
            word.windows(2).for_each(|p| {
                self.counts.entry((p[0], p[1])).and_modify(|count| *count -= *n);
            });
            let mut joined = Vec::with_capacity(word.len());
            let mut i = 0;
            while i < word.len() {
                let here = i + 1 < word.len() && (word[i], word[i + 1]) == pair;
                joined.push(if here { id } else { word[i] });
                i += if here { 2 } else { 1 };
            }
            *word = joined;
            changed.extend(self.enter(w));
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank::data::WordPiece;

    #[test]
    fn words_are_counted_as_an_uncased_bert_sees_them() {
        let counts = count_words(["Caf\u{e9}, caf\u{e9}!", "a cafe"]);
        let want = [("!", 1), (",", 1), ("a", 1), ("cafe", 3)];
        assert_eq!(counts, want.map(|(word, n)| (word.to_string(), n)).into());
    }

    #[test]
    fn the_most_frequent_neighbours_are_joined_first() {
        let counts = [("low", 5), ("lowest", 2), ("newer", 6), ("wider", 3), ("x\u{1f600}", 1)].map(|(w, n)| (w.to_string(), n)).into();
        let learnt = learn_vocabulary(&counts, 40, 2);
        assert_eq!(learnt[..5], SPECIAL);
        // By hand: ##e ##r stands there 9 times, then ##o ##w and l ##o 7 times, and l ##ow, too; then ##e ##w, w ##er and n ##e 6 times.
        let joined = &learnt[learnt.iter().position(|t| t == "##er").unwrap()..];
        assert_eq!(joined[..4], ["##er", "##ow", "low", "##ew"], "{learnt:?}");
        assert!(!learnt.iter().any(|t| t.contains('\u{1f600}')), "a rare character is left out");
        assert_eq!(learn_vocabulary(&counts, learnt.len() - 1, 2), learnt[..learnt.len() - 1], "no more than asked for");
        let wordpiece = WordPiece::from_vocab(learnt).unwrap();
        let ids = wordpiece.encode("lower", 9);
        assert_eq!(ids.iter().map(|&id| wordpiece.token(id).unwrap()).collect::<Vec<_>>(), ["[CLS]", "low", "##er", "[SEP]"]);
    }
}
