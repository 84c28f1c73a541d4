"""Personas: do they help, where do they hurt, and does a gate keep the gain and leave the facts alone?

    python -m benchmarks.personas --data DATA --model MODEL --out FOLDER                    # every part
    python -m benchmarks.personas --data DATA --model MODEL --out FOLDER --parts mmlu       # one of them
    python -m benchmarks.personas --data DATA --model MODEL --out FOLDER --small            # minutes

Five parts, each paired, each with intervals, in FOLDER/results.json:

    mmlu           accuracy on subjects: bare, generic persona, expert identity (short, medium, long; in the system
                   message or in the user's), and a neutral text of the same length; one form of answer for all
    instructions   rules that a program checks, put to open questions
    judged         the same questions without rules; a judge compares with the bare answers, in both orders
    refusal        how often harmful requests are refused, and beside it how often harmless ones are
    gate           facts and style in one pool: personas where they are proven to help, against always, never, a
                   gate at random and one in hindsight

The model writes the identities itself (`mop.personas`). Modules: `arms` (who is told what), `sources` (what is asked),
`desk` (asks, and counts), `reading` (scores to figures), one for each part, and `__main__`.
"""
