"""The studio: a local page to design a network, look at data, train, stop, resume, and use what was trained.

``dynunet studio --root FOLDER``. Its parts, each with the page that shows it:

``server``   the page and its safety: this machine alone, requests of other pages refused
``roots``    the folders that may be read, and refusal of all others
``page``     what belongs to one open page: two do not disturb each other
``widgets``  forms that are made from the flags of the commands, choosing folders, messages
``design``, ``data``, ``train``, ``use``   a tab each

It is written with NiceGUI, which brings its scripts and fonts itself, so that the page asks no other host for
anything, and keeps what a page shows with the page's connection, not in a shared place.

The code here is thin: networks, data sets, runs and commands are the library's own.
"""
