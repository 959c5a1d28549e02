// A terminal in a machine: xterm over a WebSocket that a ticket opens. Loaded when somebody asks for one.
import { FitAddon } from '@xterm/addon-fit';
import { Terminal } from '@xterm/xterm';
import { useEffect, useRef, useState } from 'preact/hooks';
import '@xterm/xterm/css/xterm.css';
import { path, perform } from '../api';

const SHELL = 'if command -v bash >/dev/null; then exec bash; else exec sh; fi';

/**
 * The page's policy allows no inline styles, which xterm writes: as text of style elements, and as attributes. What it
 * would write there goes where the policy lets scripts write: into sheets of their own, and the style object.
 */
function openPoliced(terminal: Terminal, into: HTMLElement): CSSStyleSheet[] {
  const sheets: CSSStyleSheet[] = [];
  const make = (name: string): HTMLElement => {
    const made = Document.prototype.createElement.call(document, name === 'style' ? 'i' : name);
    if (name !== 'style') return made;
    const sheet = new CSSStyleSheet();
    sheets.push(sheet);
    made.hidden = true;
    Object.defineProperty(made, 'textContent', { set: (text: string) => sheet.replaceSync(text), get: () => '' });
    return made;
  };
  Object.defineProperty(document, 'createElement', { value: make, configurable: true });
  try {
    terminal.open(into);
  } finally {
    Reflect.deleteProperty(document, 'createElement');
  }
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, ...sheets];
  return sheets;
}

const plain = Element.prototype.setAttribute;
Element.prototype.setAttribute = function setAttribute(name: string, value: string): void {
  if (name === 'style' && this instanceof HTMLElement) this.style.cssText = value;
  else plain.call(this, name, value);
};

interface End {
  told: string;
  bad: boolean;
}

function endOf(message: string): End {
  const said = JSON.parse(message) as { stream: string; exit_code?: number; error?: string };
  if (said.stream === 'error') return { told: said.error ?? 'it went wrong', bad: true };
  return { told: `ended with exit code ${said.exit_code ?? '?'}`, bad: said.exit_code !== 0 };
}

async function opened(vm: string, kind: 'exec' | 'console'): Promise<WebSocket> {
  const { ticket } = await perform<{ ticket: string }>({ method: 'POST', path: '/api/stream-tickets' });
  const at = new URL(path`/api/vms/${vm}/` + kind, location.href);
  at.protocol = at.protocol.replace('http', 'ws');
  at.searchParams.set('ticket', ticket);
  const socket = new WebSocket(at);
  socket.binaryType = 'arraybuffer';
  return socket;
}

export default function MachineTerminal({ vm, kind }: { vm: string; kind: 'exec' | 'console' }) {
  const box = useRef<HTMLDivElement>(null);
  const [end, setEnd] = useState<End | null>(null);
  const [life, setLife] = useState(0);

  // Another life is another terminal.
  useEffect(() => {
    if (!box.current) return;
    setEnd(null);
    const terminal = new Terminal({
      fontSize: 13,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", monospace',
      cursorBlink: true,
      screenReaderMode: true,
      scrollback: 5000,
      theme: { background: '#10141c', foreground: '#e3e8f0' },
    });
    const fit = new FitAddon();
    terminal.loadAddon(fit);
    const sheets = openPoliced(terminal, box.current);
    fit.fit();
    terminal.focus();
    let socket: WebSocket | null = null;
    let closed = false;
    const bytes = new TextEncoder();
    const send = (data: string | Uint8Array<ArrayBuffer>): void => {
      if (socket?.readyState === WebSocket.OPEN) socket.send(data);
    };
    const size = (): { rows: number; cols: number } => ({ rows: terminal.rows, cols: terminal.cols });
    terminal.onData((text) => send(bytes.encode(text)));
    terminal.onBinary((text) => send(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
    terminal.onResize(() => send(JSON.stringify(size())));
    const resized = new ResizeObserver(() => fit.fit());
    resized.observe(box.current);

    const begin = async (): Promise<void> => {
      try {
        socket = await opened(vm, kind);
      } catch (error) {
        setEnd({ told: error instanceof Error ? error.message : String(error), bad: true });
        return;
      }
      if (closed) return socket.close();
      socket.onopen = () => {
        if (kind === 'exec')
          send(JSON.stringify({ argv: ['sh', '-c', SHELL], env: { TERM: 'xterm-256color' }, tty: size() }));
      };
      socket.onmessage = (message: MessageEvent<string | ArrayBuffer>) => {
        if (typeof message.data === 'string') setEnd(endOf(message.data));
        else terminal.write(new Uint8Array(message.data));
      };
      socket.onclose = () => setEnd((before) => before ?? { told: 'the connection is closed', bad: true });
      return undefined;
    };
    void begin();
    return () => {
      closed = true;
      resized.disconnect();
      socket?.close();
      terminal.dispose();
      document.adoptedStyleSheets = document.adoptedStyleSheets.filter((sheet) => !sheets.includes(sheet));
    };
  }, [vm, kind, life]);

  return (
    <div class="terminal">
      <div class="terminal-box" ref={box} />
      {end && (
        <div class="row" role="status">
          <span class={end.bad ? 'bad-text' : 'dim'}>The terminal is closed: {end.told}.</span>
          <button type="button" onClick={() => setLife(life + 1)}>
            Open another
          </button>
        </div>
      )}
    </div>
  );
}
