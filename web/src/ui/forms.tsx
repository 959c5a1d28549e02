// Forms: fields become a request, which can be sent, or copied as it would be sent.
import { type ComponentChildren, Fragment } from 'preact';
import { useId, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { type Json, type Order, perform, Refusal } from '../api';
import { refreshAll } from '../resource';
import { Copies } from './actions';
import { close, Dialog } from './dialog';
import { said } from './toasts';

export type Values = Record<string, string>;
/** Of the fields that are files; their values are the files' names. */
export type Files = Record<string, File | undefined>;

export interface Field {
  name: string;
  label: string;
  kind?: 'text' | 'area' | 'number' | 'choice' | 'check' | 'file';
  value?: string;
  hint?: string;
  required?: boolean;
  choices?: [string, string][];
  /** Of a file: how its name may end, e.g. `.tar,.tgz`. */
  accept?: string;
  min?: number;
  max?: number;
  /** Takes half of the width. */
  half?: boolean;
  /** Behind “More”. */
  rare?: boolean;
  /** Only where this holds. */
  when?: (values: Values) => boolean;
}

type Set = (value: string, file?: File) => void;

function Input({ field, value, set, id }: { field: Field; value: string; set: Set; id: string }) {
  const told = {
    id,
    name: field.name,
    required: field.required ?? false,
    'aria-describedby': field.hint ? `${id}-hint` : undefined,
  };
  const onInput = (event: Event): void => set((event.currentTarget as HTMLInputElement).value);
  if (field.kind === 'area') return <textarea {...told} rows={4} value={value} onInput={onInput} spellcheck={false} />;
  if (field.kind === 'choice') {
    return (
      <select {...told} value={value} onChange={onInput}>
        {(field.choices ?? []).map(([name, label]) => (
          <option key={name} value={name}>
            {label}
          </option>
        ))}
      </select>
    );
  }
  if (field.kind === 'file') {
    const chosen = (event: Event): void => {
      const file = (event.currentTarget as HTMLInputElement).files?.[0];
      set(file?.name ?? '', file);
    };
    return <input {...told} type="file" accept={field.accept} onChange={chosen} />;
  }
  if (field.kind === 'number')
    return (
      <input
        {...told}
        type="number"
        min={field.min}
        max={field.max}
        value={value}
        onInput={onInput}
        autocomplete="off"
      />
    );
  return (
    <input
      {...told}
      type="text"
      list={undefined}
      value={value}
      onInput={onInput}
      autocomplete="off"
      spellcheck={false}
    />
  );
}

interface RowProps {
  field: Field;
  values: Values;
  set: (name: string, ...value: Parameters<Set>) => void;
}

function Row({ field, values, set }: RowProps) {
  const id = useId();
  const value = values[field.name] ?? '';
  if (field.kind === 'check') {
    return (
      <label class="check" htmlFor={id}>
        <input
          id={id}
          type="checkbox"
          name={field.name}
          checked={value === 'yes'}
          onChange={(event) => set(field.name, event.currentTarget.checked ? 'yes' : '')}
        />
        <span>
          {field.label}
          {field.hint && <span class="hint">{field.hint}</span>}
        </span>
      </label>
    );
  }
  return (
    <div class={field.half ? 'field half' : 'field'}>
      <label htmlFor={id}>
        {field.label}
        {!field.required && <span class="dim small"> optional</span>}
      </label>
      <Input field={field} value={value} set={(...value) => set(field.name, ...value)} id={id} />
      {field.hint && (
        <span class="hint" id={`${id}-hint`}>
          {field.hint}
        </span>
      )}
    </div>
  );
}

export interface FormProps {
  title: string;
  fields: Field[];
  submit: string;
  make: (values: Values) => Order;
  done: string;
  onDone?: (answer: Json, files: Files) => void;
  /** Asks what would become of it, and does nothing. */
  preview?: { label: string; path: string; show: (answer: Json) => ComponentChildren };
}

export function FormDialog({ title, fields, submit, make, done, onDone, preview }: FormProps) {
  const [values, setValues] = useState<Values>(() =>
    Object.fromEntries(fields.map((field) => [field.name, field.value ?? firstChoice(field)])),
  );
  const [refusal, setRefusal] = useState<Refusal | null>(null);
  const [busy, setBusy] = useState(false);
  const [told, setTold] = useState<Json>(null);
  const form = useRef<HTMLFormElement>(null);
  const looked = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    if (told !== null || refusal) looked.current?.scrollIntoView({ block: 'nearest' });
  }, [told, refusal]);
  const files = useRef<Files>({});
  const set = (name: string, value: string, file?: File): void => {
    files.current[name] = file;
    setValues((before) => ({ ...before, [name]: value }));
  };
  const shown = fields.filter((field) => field.when?.(values) ?? true);
  const order = make(values);

  async function send(event: Event): Promise<void> {
    event.preventDefault();
    setBusy(true);
    setRefusal(null);
    try {
      const answer = await perform<Json>(order);
      said(done);
      close();
      onDone?.(answer, files.current);
    } catch (error) {
      if (error instanceof Refusal) setRefusal(error);
      else throw error;
    } finally {
      setBusy(false);
      refreshAll();
    }
  }

  async function look(at: string): Promise<void> {
    if (!form.current?.reportValidity()) return;
    setBusy(true);
    setRefusal(null);
    setTold(null);
    try {
      setTold(await perform<Json>({ ...order, path: at, cli: undefined }));
    } catch (error) {
      if (error instanceof Refusal) setRefusal(error);
      else throw error;
    } finally {
      setBusy(false);
    }
  }

  const rare = shown.filter((field) => field.rare);
  return (
    <Dialog title={title}>
      <form ref={form} onSubmit={(event) => void send(event)}>
        <div class="fields">
          {shown
            .filter((field) => !field.rare)
            .map((field) => (
              <Row key={field.name} field={field} values={values} set={set} />
            ))}
        </div>
        {rare.length > 0 && (
          <details class="rare">
            <summary>More</summary>
            <div class="fields">
              {rare.map((field) => (
                <Row key={field.name} field={field} values={values} set={set} />
              ))}
            </div>
          </details>
        )}
        <div ref={looked}>
          {told !== null && (
            <div class="preview" role="status">
              {preview?.show(told)}
            </div>
          )}
          {refusal && (
            <div class="trouble" role="alert">
              <strong>{refusal.message}</strong>
              {[refusal.reason, refusal.resolution].filter(Boolean).map((line) => (
                <Fragment key={line}>
                  <span>{line}</span>
                </Fragment>
              ))}
            </div>
          )}
        </div>
        <footer>
          <Copies order={order} />
          <span class="grow" />
          {preview && (
            <button type="button" disabled={busy} onClick={() => void look(preview.path)}>
              {preview.label}
            </button>
          )}
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="main" disabled={busy}>
            {busy ? 'Working …' : submit}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}

const firstChoice = (field: Field): string => (field.kind === 'choice' ? (field.choices?.[0]?.[0] ?? '') : '');

/** The words of a text, cut at commas and blanks. */
export const listed = (text: string | undefined): string[] => (text ?? '').split(/[\s,]+/).filter(Boolean);

export const lines = (text: string | undefined): string[] =>
  (text ?? '')
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean);

export const numbered = (text: string | undefined): number | undefined => (text ? Number(text) : undefined);
