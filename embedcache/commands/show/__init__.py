"""What people read on the screen. Notes and tables only; the numbers come from the jobs' reports.

Files, in the order in which to read them:

    cache        What people read on the screen
    run          What people read on the screen after train-head
    predict      What predict prints
    evaluation   What people read on the screen after evaluate
    index        What people read on the screen of `embedcache index`
    search       What people read on the screen after search
    audit        What people read on the screen after audit
"""
