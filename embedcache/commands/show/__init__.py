"""What people read on the screen. Notes and tables only; the numbers come from the jobs' reports.

Files, in the order in which to read them:

    cache        After extract, merge, info and verify
    vectors      After import and vectors
    adapt        After adapt
    run          After train-head, report and export
    predict      After predict
    zero_shot    After zero-shot
    ladder       After ladder
    evaluation   After evaluate
    drift        After drift
    index        After index
    search       After search
    audit        After audit
    next_rows    After next
    labels       After labels and relabel
"""
