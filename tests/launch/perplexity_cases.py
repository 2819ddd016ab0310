"""Cases of `conclave perplexity`."""
import json
import os

from command import Case, shakespeare, text


class Perplexity(Case):
    KEYS = "perplexity standard_error mean_nll tokens window windows stride seconds tokens_per_second".split()

    def score(self, *arguments):
        out, err = self.succeeds("perplexity", shakespeare(), text(), "--activations", "f32", "--json", *arguments)
        self.assertEqual(out.count("\n"), 1, out)
        figures = json.loads(out)
        self.assertEqual(list(figures), self.KEYS)
        return figures, err

    def expected(self):
        with open(os.path.join(shakespeare(), "expected.json")) as f:
            return json.load(f)

    def test_is_that_of_the_reference(self):
        wanted = self.expected()
        for ranks in "1", "2", "3":
            figures, err = self.score("--local-ranks", ranks)
            self.assertAlmostEqual(figures["perplexity"], wanted["perplexity"], delta=5e-5)
            self.assertEqual(figures["tokens"], wanted["perplexity_tokens"])
            self.assertAlmostEqual(figures["standard_error"], 1.07533, delta=1e-4)
            self.assertIn("scoring 100 %", err)

    def test_other_windows(self):
        # The figures are a plain numpy forward's.
        figures, _ = self.score("--window", "50", "--windows", "11", "--stride", "33")
        self.assertAlmostEqual(figures["perplexity"], 18.066052, delta=2e-4)
        self.assertAlmostEqual(figures["standard_error"], 1.690490, delta=2e-4)
        self.assertEqual((figures["tokens"], figures["stride"]), (550, 33))
        figures, _ = self.score("--window", "1000", "--windows", "2", "--stride", "17", "-b", "300")
        self.assertAlmostEqual(figures["perplexity"], 17.736061, delta=2e-4)

    def test_how_windows_share_steps_changes_nothing(self):
        flags = ["--windows", "5", "--deterministic"]
        wanted = self.score(*flags)[0]["perplexity"]
        for more in (["-b", "7"], ["--max-num-seqs", "1"], ["-b", "4096"], ["--local-ranks", "2"], ["-c", "1024"]):
            self.assertEqual(self.score(*flags, *more)[0]["perplexity"], wanted, more)

    def test_text_for_people(self):
        out, err = self.succeeds("perplexity", shakespeare(), text(), "--windows", "3")
        self.assertRegex(out, r"^perplexity +\d+\.\d{4} \+/- \d+\.\d{4}\nscored +384 tokens.*\nspeed .*\n$")
        self.assertIn("loaded", err)
        out, _ = self.succeeds("perplexity", shakespeare(), text(), "--window", "1", "--windows", "1")
        self.assertRegex(out, r"^perplexity +\d+\.\d{4}\n")

    def test_texts_that_do_not_do(self):
        for ranks in "1", "2":
            flags = ["perplexity", shakespeare(), text(), "--local-ranks", ranks]
            self.fails(2, ["4617 tokens", "--windows", "at most 36"], *flags, "--windows", "37")
            self.fails(2, ["--window", "1024"], *flags, "--window", "1025")
            self.fails(2, ["--window", "64"], *flags, "-c", "64")
        short = os.path.join(self.scratch.name, "short")
        for content in b"", b"O Romeo":
            with open(short, "wb") as f:
                f.write(content)
            self.fails(2, [short, "tokens"], "perplexity", shakespeare(), short)
        model = self.copy()
        os.remove(model.file("tokenizer.json"))
        self.fails(2, ["tokenizer.json"], "perplexity", str(model), text())

    def test_the_last_window_ends_with_the_text(self):
        figures, _ = self.score("--window", "1", "--windows", "4616")
        self.assertEqual(figures["tokens"], 4616)
        self.fails(2, ["4617 tokens"], "perplexity", shakespeare(), text(), "--window", "1", "--windows", "4617")

    def test_logits_that_are_no_numbers(self):
        def broken(tensors):
            dtype, shape, data = tensors["lm_head.weight"]
            tensors["lm_head.weight"] = (dtype, shape, b"\xc0\x7f" + data[2:])

        model = self.copy().tensors(broken)
        for ranks in "1", "2":
            self.fails(65, ["logits"], "perplexity", str(model), text(), "--local-ranks", ranks)
