"""All contexts seen as one: what happens, what needs a person, why something stands where it stands, what proves it.

Rules only: values and pure functions over what the contexts say. What is asked of them is in ``ports``, who asks in
``services``. Nothing here changes anything.
"""
